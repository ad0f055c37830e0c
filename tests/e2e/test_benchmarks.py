"""The benchmarks start and print what they promise, so that they cannot rot; what they measure is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_codec_benchmark_measures_every_row() -> None:
    command = [sys.executable, str(BENCHMARKS / "codecs.py"), "--values", "20000", "--repeats", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "uniform(4)" in json.dumps(json.loads(done.stdout))


def test_the_throughput_benchmark_knows_its_workloads() -> None:
    command = [sys.executable, str(BENCHMARKS / "throughput.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "cnn-silo" in done.stdout


def test_the_comparison_with_nncodec_measures_ours_where_it_is_not_installed() -> None:
    command = [sys.executable, str(BENCHMARKS / "nncodec.py"), "--values", "20000", "--repeats", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["comparisons"] == []
    assert {row["name"] for row in found["rows"]} >= {"trellis | rans", "uniform | rans", "numpy", "torch", "zstd"}


def test_the_training_benchmark_says_what_it_needs() -> None:
    command = [sys.executable, str(BENCHMARKS / "training.py"), "--data", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "--data nowhere: no such folder; it should hold MNIST's four IDX files"
