"""The colours of figures in the light and the dark theme.

Blue to sky are Okabe and Ito's ("Color Universal Design", 2008, https://jfly.uni-koeln.de/color/), so that no reader depends on
telling red from green.
"""

PAPER, INK, SOFT, GRID = "#fdfdfb", "#1b1b1a", "#6b6b65", "#b9b9b4"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
# The colours of the dark theme; templates/style.css has the same paper and inks.
DARK = {
    PAPER: "#16181a",
    INK: "#e6e4de",
    SOFT: "#a9a8a1",
    GRID: "#46484a",
    BLUE: "#5db4ea",
    VERMILLION: "#f08a4b",
    GREEN: "#3cc69a",
    PURPLE: "#e0a0c5",
    ORANGE: "#f0b840",
    SKY: "#8fd0f5",
}
_RULES = "".join(
    f'[style*="{kind}: {light}"]{{{kind}: {dark} !important}}'
    for light, dark in DARK.items()
    for kind in ("fill", "stroke")
)
# The background of a figure: without one, its dark lines would vanish on a dark page, as of README.md.
GROUND = (
    f'<g id="ground"><style>@media (prefers-color-scheme: dark) {{{_RULES}}}</style>'
    f'<rect width="100%" height="100%" style="fill: {PAPER}"/></g>'
)


def on_ground(svg: bytes) -> bytes:
    """Put a figure on a background that follows the reader's light or dark theme."""
    head, opening, rest = svg.partition(b"<svg")
    attributes, end, shapes = rest.partition(b">\n")
    return head + opening + attributes + end + f" {GROUND}\n".encode() + shapes
