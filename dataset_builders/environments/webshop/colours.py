"""Colour names, by which WebShop normalises options."""

from __future__ import annotations

# Order matters: the first name that occurs decides, so "dark blue" is blue, and "dark red" dark.
_COLOURS_TEXT = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze "
    "brown burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate "
    "christmas coffee cognac copper coral cranberry cream crystal dark denim eggplant "
    "elephant espresso fuchsia gold granite grape graphite grass gray green grey heather "
    "indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve "
    "merlot midnight mint mocha multicolor mushroom mustard natural navy nude olive orange "
    "peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell silver "
    "skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut "
    "wheat white wine yellow "
)
_COLOURS = tuple(_COLOURS_TEXT.split())


def plain_colour(option: str) -> str:
    """Return the first known colour that occurs in an option, or the option itself.

    WebShop's rule, with its side effects: it matches within words ("tailored" is red).
    """
    return next((colour for colour in _COLOURS if colour in option), option)
