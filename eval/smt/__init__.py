"""Statistical machine translation from the semantic tuple of a clip to its sentence, as in Rohrbach et al. 2013.

    alignment   word alignment of tuples and sentences by nltk's IBM models, in both directions
    phrases     the phrase table
    decoder     stack decoding, with the language model of ``eval.ngram``
    tuning      the weights, by BLEU-4 on val
    translator  all of these as one model, for one tuple or for several with probabilities

``python -m eval.smt --help`` shows the command. The original work used Moses and IRSTLM.
"""

from eval.smt.translator import Translator, train_smt

__all__ = ["Translator", "train_smt"]
