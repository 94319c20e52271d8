"""Text to token ids and back: from Hugging Face files, GGUF metadata, bytes, or trained."""

from lmdyn.data.tokenizers.bpe import byte_tokenizer, train_bpe
from lmdyn.data.tokenizers.gguf_metadata import from_gguf
from lmdyn.data.tokenizers.hf_files import FILES, from_file, from_folder
from lmdyn.data.tokenizers.tokenizer import END_OF_TEXT, Tokenizer

__all__ = [
    "END_OF_TEXT",
    "FILES",
    "Tokenizer",
    "byte_tokenizer",
    "from_file",
    "from_folder",
    "from_gguf",
    "train_bpe",
]
