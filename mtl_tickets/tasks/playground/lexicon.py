"""The words of the invented language, as concepts.

A concept is named by its first word; its other words are synonyms. Nouns, verbs and places stand in a taxonomy
(``parent``); verbs and qualities have an opposite. Everything a task asks about words (same meaning, more general,
opposite, sibling) is read off these tables, so that no fact about words is written twice.
"""

from __future__ import annotations

from dataclasses import dataclass

# parent: child/synonym child ...
_NOUNS = """
person: worker scholar artist
worker: farmer/grower baker driver/chauffeur builder
scholar: teacher/instructor student/pupil writer/author
artist: painter singer/vocalist dancer
animal: bird beast pet
bird: hen/chicken crow/raven eagle
beast: horse/stallion wolf bear
pet: dog/hound cat/kitten rabbit/bunny
object: tool fruit vehicle garment
tool: hammer shovel/spade axe/hatchet
fruit: apple pear lemon
vehicle: car/automobile truck/lorry boat/ship
garment: coat/jacket hat/cap shirt/blouse
"""
_VERBS = """
move: carry/haul push/shove pull/drag
take: steal/snatch borrow buy/purchase
follow: chase/pursue track/trail
see: watch/observe notice/spot
handle: wash/rinse fix/repair break/wreck hide/conceal
meet: help/assist hurt/harm
-: like/enjoy hate/dislike find/locate lose/misplace sell
"""
_PLACES = """
indoors: kitchen cellar/basement bedroom attic
outdoors: park garden/yard forest/woods meadow
downtown: market/bazaar street/road harbour/port square
"""
# concept: opposite
_OPPOSITES = "push pull buy sell find lose fix break like hate help hurt hide see"
_QUALITIES = "big/large small/little old/ancient new/modern clean/spotless dirty/filthy heavy/weighty light"
_TIMES = "dawn/daybreak night/midnight noon/midday dusk/sunset"
_MANNERS = "quickly/rapidly slowly/gradually quietly/silently loudly/noisily"

COLORS = ("red", "blue", "green", "black", "white", "yellow", "brown")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight")
SINGULAR = ("the", "a", "this")
PLURAL = ("these", "some", "many", *NUMBERS)

ASPECTS = (
    "movie", "film", "story", "plot", "acting", "music", "ending",
    "script", "cast", "scene", "novel", "song", "concert", "show",
)  # fmt: skip
PRAISE = (
    "good", "great", "lovely", "superb", "brilliant", "charming", "funny",
    "fresh", "witty", "warm", "clever", "touching", "vivid", "rich",
)  # fmt: skip
BLAME = (
    "bad", "awful", "poor", "terrible", "dull", "boring", "weak",
    "silly", "stale", "clumsy", "lifeless", "tedious", "shallow", "messy",
)  # fmt: skip
DEGREES = ("very", "really", "truly", "quite", "rather", "so")
VIEWERS = ("i", "we", "critics", "viewers")
LOVE = ("love", "adore", "admire", "praise", "recommend")
LOATHE = ("loathe", "detest", "regret", "avoid", "mock")

_PLURALS = {"person": "people", "wolf": "wolves", "scarf": "scarves"}
_PARTICIPLES = {
    "take": "taken", "steal": "stolen", "see": "seen", "buy": "bought", "sell": "sold", "find": "found",
    "lose": "lost", "break": "broken", "hurt": "hurt", "hide": "hidden", "meet": "met", "drag": "dragged",
    "spot": "spotted",
}  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """One meaning. ``words`` are its synonyms, ``parent`` the next more general concept, ``opposite`` its contrary."""

    name: str
    words: tuple[str, ...]
    parent: str | None = None
    opposite: str | None = None


def _taxonomy(table: str, opposites: str = "") -> dict[str, Concept]:
    pairs = opposites.split()
    opposite = dict(zip(pairs[::2], pairs[1::2], strict=True))
    opposite |= {b: a for a, b in opposite.items()}
    concepts: dict[str, Concept] = {}
    for line in table.strip().splitlines():
        parent, _, members = line.partition(": ")
        if parent != "-" and parent not in concepts:
            concepts[parent] = Concept(parent, (parent,), None, opposite.get(parent))
        for member in members.split():
            words = tuple(member.split("/"))
            concepts[words[0]] = Concept(words[0], words, None if parent == "-" else parent, opposite.get(words[0]))
    return concepts


NOUNS = _taxonomy(_NOUNS)
VERBS = _taxonomy(_VERBS, _OPPOSITES)
PLACES = _taxonomy(_PLACES)
_quality_names = [word.split("/")[0] for word in _QUALITIES.split()]
QUALITIES = _taxonomy(f"-: {_QUALITIES}", " ".join(_quality_names))
TIMES = _taxonomy(f"-: {_TIMES}")
MANNERS = _taxonomy(f"-: {_MANNERS}")
CONCEPTS = {**NOUNS, **VERBS, **PLACES, **QUALITIES, **TIMES, **MANNERS}


def children(name: str) -> list[str]:
    """The concepts right below ``name``."""
    return [c.name for c in CONCEPTS.values() if c.parent == name]


def siblings(name: str) -> list[str]:
    """The other concepts with the same parent (for concepts without one: the others without one of the same table)."""
    table = next(t for t in (NOUNS, VERBS, PLACES, QUALITIES, TIMES, MANNERS) if name in t)
    parent = table[name].parent
    return [c.name for c in table.values() if c.parent == parent and c.name not in (name, table[name].opposite)]


def ancestors(name: str) -> list[str]:
    """The more general concepts of ``name``, nearest first."""
    found = []
    parent = CONCEPTS[name].parent
    while parent is not None:
        found.append(parent)
        parent = CONCEPTS[parent].parent
    return found


def leaves(name: str) -> list[str]:
    """The most specific concepts below ``name``."""
    below = children(name)
    return [leaf for child in below for leaf in leaves(child)] if below else [name]


def plural(noun: str) -> str:
    return _PLURALS.get(noun) or _with_s(noun)


def third_person(verb: str) -> str:
    return _with_s(verb)


def participle(verb: str) -> str:
    if verb in _PARTICIPLES:
        return _PARTICIPLES[verb]
    if verb.endswith("e"):
        return verb + "d"
    return verb[:-1] + "ied" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "ed"


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "sh", "ch")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"
