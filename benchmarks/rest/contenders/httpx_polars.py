# /// script
# dependencies = ["httpx==0.28.1", "polars==2.1.0"]
# ///
"""By hand: pages one after the other with httpx, each read by Polars, 50 of them to a file. No retries, no checks."""

import io
import json
import sys
from pathlib import Path

import httpx
import polars as pl

PAGES = 50


def main(url: str, size: str, out: str) -> None:
    frames: list[pl.DataFrame] = []
    number = 0
    with httpx.Client() as client:
        while True:
            number += 1
            answer = client.get(url, params={"page": number, "per_page": size})
            answer.raise_for_status()
            page = answer.content
            if len(page) < 100 and not json.loads(page)["data"]:
                break
            start, end = page.index(b"["), page.rindex(b"]") + 1
            frames.append(pl.read_json(io.BytesIO(page[start:end])))
            if len(frames) == PAGES:
                write(frames, Path(out) / f"{number}.parquet")
    if frames:
        write(frames, Path(out) / "last.parquet")


def write(frames: list[pl.DataFrame], path: Path) -> None:
    pl.concat(frames, how="vertical_relaxed").write_parquet(path, compression="zstd", compression_level=1)
    frames.clear()


if __name__ == "__main__" and sys.argv[1:]:
    main(*sys.argv[1:4])
