"""Training of sentence decoders, shared by the tasks captioning, language_model and clip_captioning."""
