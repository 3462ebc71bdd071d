"""Finding sentences: greedy, beam search and sampling over any ``Decoder``."""
