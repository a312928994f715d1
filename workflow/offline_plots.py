"""Write a template with which ``dvc plots`` works offline, because its pages include Vega, Vega-Lite and Vega-Embed.

``python workflow/offline_plots.py`` writes ``.dvc/tmp/offline.html``, and prints the command that makes DVC use it.
"""

import sys
from pathlib import Path

# DVC keeps this folder out of git.
TEMPLATE = Path(".dvc/tmp/offline.html")
VEGA_LITE = "5.21"
# The scripts are wrapped in a function, so that their names do not clash with names on the page.
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>DVC plots</title>{refresh_tag}
<script>(function () {SCRIPTS})();</script></head>
<body>{plot_divs}</body>
</html>
"""


def page() -> str:
    """Return the template, about 0.9 MB.

    Raises:
        SystemExit: if the package vl-convert-python, which has the scripts, is not installed.
    """
    try:
        from vl_convert import javascript_bundle
    except ModuleNotFoundError:
        sys.exit("offline_plots: found no package vl_convert, which has Vega's scripts; pip install '.[plots]'")
    # The version that DVC's plots need; "</script" would end the element.
    scripts = javascript_bundle(vl_version=VEGA_LITE).replace("</script", "<\\/script")
    return PAGE.replace("{SCRIPTS}", f"{{{scripts}}}")


def main() -> None:
    """Write the template."""
    text = page()
    TEMPLATE.parent.mkdir(exist_ok=True)
    TEMPLATE.write_text(text, encoding="utf-8")
    print(f"dvc config --local plots.html_template {TEMPLATE.relative_to('.dvc')}")


if __name__ == "__main__":
    main()
