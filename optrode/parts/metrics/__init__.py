"""What an edit does besides its purpose: one small file per metric, each a value per item or per reply.

`distinct` and `repetition` look at texts, `decline` at answers to harmless requests, `capability` at multiple-choice
questions, `off_target` at the other behaviours, `effects` gathers them for a comparison. Perplexity of replies under
the unedited model, KL divergence on neutral text and forced-choice log-odds are in `parts.bench` and `parts.choice`.
"""
