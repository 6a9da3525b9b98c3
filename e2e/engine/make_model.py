"""Makes a language model without a download: a llama of a few hundred kilobytes with random weights.

usage: make_model.py OUT.gguf

Everything about it is real but the training: tokenizer, chat template, attention, sampling. It answers with made-up
words until max_tokens is reached, because nothing but words ever gets a probability worth naming.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

NAME = "tiny-random"
CONTEXT = 65536
EMBEDDING = 64
HEADS = 2
BLOCKS = 2
INNER = 96
# SentencePiece writes the blank before a word like this.
BLANK = "▁"
ROLES = ("system", "user", "assistant", "tool")
# Tools stand in the prompt, so that the count of its tokens shows whether they arrived.
CHAT_TEMPLATE = """\
{%- if tools -%}[system] {{ tools | tojson }}{%- endif -%}
{%- for message in messages -%}
[{{ message.role }}] {{ message.content or "" }}
{%- if message.tool_calls -%}{{ message.tool_calls | tojson }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}[assistant]{%- endif -%}"""


def vocabulary() -> list[tuple[str, float, gguf.TokenType]]:
    """(text, score, type) of each token; the words come last."""
    kinds = gguf.TokenType
    tokens = [("<unk>", 0.0, kinds.UNKNOWN), ("<s>", 0.0, kinds.CONTROL), ("</s>", 0.0, kinds.CONTROL)]
    tokens += [(f"[{role}]", 0.0, kinds.CONTROL) for role in ROLES]
    tokens += [(f"<0x{byte:02X}>", 0.0, kinds.BYTE) for byte in range(256)]
    # Every printable character by itself, so that any prompt can be spelt.
    tokens += [(char, -20.0, kinds.NORMAL) for char in [BLANK, *map(chr, range(0x21, 0x7F))]]
    syllables = [head + tail for head in ("b", "dr", "fl", "k", "m", "sh", "t", "v") for tail in ("a", "en", "i", "or")]
    words = [BLANK + first + last for first in syllables[::2] for last in syllables[1::3]]
    tokens += [(word, -1.0 - rank / 1000, kinds.NORMAL) for rank, word in enumerate(words)]
    return tokens


def describe(out: gguf.GGUFWriter, tokens: list[tuple[str, float, gguf.TokenType]]) -> None:
    out.add_name(NAME)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(EMBEDDING)
    out.add_block_count(BLOCKS)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(EMBEDDING // HEADS)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("llama")
    out.add_token_list([text for text, _, _ in tokens])
    out.add_token_scores([score for _, score, _ in tokens])
    out.add_token_types([kind for _, _, kind in tokens])
    out.add_unk_token_id(0)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.add_chat_template(CHAT_TEMPLATE)


def fill(out: gguf.GGUFWriter, tokens: list[tuple[str, float, gguf.TokenType]]) -> None:
    dice = np.random.default_rng(20_26)

    def matrix(rows: int, columns: int) -> np.ndarray:
        """Rows times columns, scaled so that what goes through it keeps its size."""
        return (dice.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(EMBEDDING, dtype=np.float32)
    out.add_tensor("token_embd.weight", matrix(len(tokens), EMBEDDING) * np.float32(EMBEDDING**0.5))
    for block in (f"blk.{index}" for index in range(BLOCKS)):
        out.add_tensor(f"{block}.attn_norm.weight", ones)
        for part in ("q", "k", "v", "output"):
            out.add_tensor(f"{block}.attn_{part}.weight", matrix(EMBEDDING, EMBEDDING))
        out.add_tensor(f"{block}.ffn_norm.weight", ones)
        out.add_tensor(f"{block}.ffn_gate.weight", matrix(INNER, EMBEDDING))
        out.add_tensor(f"{block}.ffn_up.weight", matrix(INNER, EMBEDDING))
        out.add_tensor(f"{block}.ffn_down.weight", matrix(EMBEDDING, INNER))
    out.add_tensor("output_norm.weight", ones)
    # A row of zeros gives a token the logit 0; the words' logits spread over some ±10, so one of them is far above.
    head = matrix(len(tokens), EMBEDDING) * np.float32(4)
    is_word = [text.startswith(BLANK) and text != BLANK for text, _, _ in tokens]
    head[~np.array(is_word)] = 0
    out.add_tensor("output.weight", head)


def main() -> None:
    path = Path(sys.argv[1])
    tokens = vocabulary()
    unfinished = path.with_suffix(".part")
    out = gguf.GGUFWriter(unfinished, "llama")
    describe(out, tokens)
    fill(out, tokens)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    unfinished.rename(path)


if __name__ == "__main__":
    main()
