"""Ask a model that runs over two workers of this machine, and print the answer as it comes."""

from hyperlane import AutoDistributedModel

with AutoDistributedModel.from_pretrained("smollm2_135m", cluster="local") as model:
    for piece in model.stream("Why is the sky blue?", max_new_tokens=64):
        print(piece, end="", flush=True)
    print()
