"""`python -m tests.bench.engines.build_genai`: SmolLM2's GGUF as an INT4 model of onnxruntime-genai, by its builder."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.engines.engine import GENAI_MODEL, GENAI_PACKAGE, THREADS, gguf


def main() -> None:
    source = GENAI_MODEL.parent / "smollm2-hf"
    _save(gguf(), source)
    builder = GENAI_PACKAGE / "onnxruntime_genai" / "models" / "builder.py"
    command = [sys.executable, str(builder), "-i", str(source), "-o", str(GENAI_MODEL), "-p", "int4", "-e", "cpu"]
    path = os.pathsep.join((str(GENAI_PACKAGE), str(builder.parent)))
    subprocess.run([*command, "-c", str(source)], check=True, env={**os.environ, "PYTHONPATH": path})
    _set_threads(GENAI_MODEL / "genai_config.json")


def _save(file: Path, folder: Path) -> None:
    """The dequantized weights in Hugging Face's layout."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def _set_threads(path: Path) -> None:
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = THREADS
    path.write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main()
