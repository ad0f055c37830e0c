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
