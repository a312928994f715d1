"""Blocks of a text that a program writes, in a file that people write: what lies outside of the markers is left alone."""

import re

from indm.errors import ArtifactError

END = "<!-- end of {name} -->"


def replace_block(text: str, name: str, content: str, place: str) -> str:
    """Put new content between the markers of a block.

    Arguments:
        text: the file's text.
        name: of the block; its first marker is ``<!-- name: ... -->``, its last ``<!-- end of name -->``.
        content: lines to stand between them.
        place: of the file, for the message.

    Raises:
        ArtifactError: if the file has not both markers once, in this order.
    """
    end = re.escape(END.format(name=name))
    pattern = re.compile(rf"(<!-- {re.escape(name)}: [^\n]* -->\n)(.*?)({end})", flags=re.DOTALL)
    if (found := len(pattern.findall(text))) != 1 or text.count(END.format(name=name)) != 1:
        raise ArtifactError(
            f"{place}: found {found} blocks <!-- {name}: ... --> to {END.format(name=name)}, expected one; "
            "put the two lines where the block should stand"
        )
    return pattern.sub(lambda match: f"{match[1]}\n{content.strip()}\n\n{match[3]}", text)
