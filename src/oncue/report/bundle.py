"""The program that draws the charts, Vega with Vega-Lite, from the package that carries it."""

from __future__ import annotations

from functools import cache


@cache
def vega() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, which sets `vegaEmbed`.

    Raises:
        ImportError: Without `vl-convert-python`, with the name of the extra that brings it.
    """
    try:
        from vl_convert import javascript_bundle
    except ImportError as error:
        raise ImportError("A report needs vl-convert-python. Run `pip install 'oncue[report]'`.") from error
    # Nothing else ends a script.
    return str(javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script")
