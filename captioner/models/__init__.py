"""Recurrent decoders: a table of wirings, the stack that follows it, and the captioner around the stack."""
