"""Plots of DVC in a browser without a network, as docs/dvc.md says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import REPOSITORY
from tests.test_page import CHROMIUM, CHROMIUM_OPTIONS, NEEDS_CHROMIUM

SCRIPT = [sys.executable, str(REPOSITORY / "workflow/offline_plots.py")]


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=os.environ.copy())
    return done.stdout


@NEEDS_CHROMIUM
@pytest.mark.browser
def test_a_plot_is_drawn_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="no package vl-convert-python: pip install '.[plots]'")
    (tmp_path / "curve.csv").write_text("step,nll\n1,2.0\n2,1.5\n4,1.2\n")
    run(tmp_path, "dvc", "init", "--no-scm", "--quiet")
    run(tmp_path, *run(tmp_path, *SCRIPT).split())
    run(tmp_path, "dvc", "plots", "show", "curve.csv")
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_context(offline=True).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "dvc_plots/index.html").as_uri())
        page.locator("canvas.marks, svg.marks").first.wait_for()
        browser.close()
    assert [address for address in asked if not address.startswith("file:")] == []


def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "vl_convert.py").write_text("raise ModuleNotFoundError")
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(SCRIPT, cwd=tmp_path, capture_output=True, text=True, check=False, env=path)
    assert done.returncode == 1
    assert (
        done.stderr == "offline_plots: found no package vl_convert, which has Vega's scripts; pip install '.[plots]'\n"
    )
