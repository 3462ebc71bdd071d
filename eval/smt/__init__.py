"""From the semantic tuple of a clip to its sentence by statistical machine translation, as Rohrbach et al. 2013.

    alignment   which word of a sentence stands for which label: IBM models, both directions
    phrases     the phrase table that follows from it
    language    an n-gram model of the sentences
    decoder     the likeliest sentences of a tuple, by weights
    tuning      weights, by BLEU-4 on val
    translator  all of these as one model, for one tuple or for several with probabilities

``python -m eval.smt --help`` runs it. The originals are Moses and IRSTLM; here the IBM models are nltk's.
"""

from eval.smt.translator import Translator, train_smt

__all__ = ["Translator", "train_smt"]
