"""What the command line loads before it knows that it can run at all."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
sys.argv = ["tightwire", "run", "tiny.yaml", "--set", "data={name: mnist, folder: /nonexistent}"]
from tightwire_pipelines.cli import main
try:
    main()
finally:
    print(sorted({"ray", "mlflow", "matplotlib"} & {name.split(".")[0] for name in sys.modules}))
"""


def test_a_missing_data_folder_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("rounds: 2\n")
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "/nonexistent: no such folder" in done.stderr
    assert done.stdout.strip() == "[]"


def test_who_looks_at_jobs_waits_for_no_numerics() -> None:
    program = "import sys, tightwire_pipelines.jobs, tightwire_pipelines.jobs_watch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
