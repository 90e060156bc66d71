"""GPT-NeoX and Pythia: biases, LayerNorm, parallel residual, rotary embedding of a part of each head."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True, base="gpt_neox", norm="final_layer_norm", embedding="embed_in", head="embed_out")
