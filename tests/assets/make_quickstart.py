"""Writes the rows and the tokenizer of the quickstart recipe: short conversations of questions with one right answer.

    python tests/assets/make_quickstart.py [DIRECTORY]        (default: recipes/quickstart)

What is asked in a validation row is asked nowhere in the training rows. Where a kind of question follows a rule
(parity, repeating, reversing) whole numbers are held out; where it is a table (sums, days, opposites ...) single
wordings are, so that the fact itself can be learnt. Only follow-ups and courtesies, which lean on the turns before
them, recur in both.

The rows are a function of SEED alone, and the tokenizer is a function of the training rows.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SEED = 21
TRAIN_ROWS = 960
VALID_ROWS = 80
VOCAB_SIZE = 512  # 3 special tokens, 256 bytes, 253 merges
MAX_TOKENS = 128
HELD_OUT_SHARE = 0.15  # of the numbers of a rule

PAD, TURN, END = "<|pad|>", "<|turn|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|turn|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
)

BRIEF = "Be brief."
FULL = "Answer in full sentences."
GREETING = ("Hello!", "Hello! What would you like to know?")
THANKS = ("Thank you.", "You are welcome.")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS = "January February March April May June July August September October November December"
OPPOSITES = """hot cold, big small, fast slow, up down, early late, happy sad, full empty, wet dry, soft hard,
    rich poor, strong weak, loud quiet, near far, clean dirty"""
PLURALS = """book books, dog dogs, door doors, lamp lamps, river rivers, ship ships, tree trees, window windows,
    box boxes, fox foxes, dish dishes, glass glasses, baby babies, city cities, story stories, leaf leaves, wolf wolves,
    child children, foot feet, mouse mice"""
COLOURS = """blood red, a tomato red, a strawberry red, a lemon yellow, a banana yellow, butter yellow, grass green,
    a cucumber green, a frog green, snow white, milk white, a swan white, coal black, a raven black, a carrot orange,
    a pumpkin orange, chocolate brown, a chestnut brown, an elephant grey, ash grey"""
CAPITALS = """Austria Vienna, Brazil Brasília, Cameroon Yaoundé, Colombia Bogotá, Cuba Havana, Egypt Cairo,
    France Paris, Greece Athens, Iceland Reykjavík, Italy Rome, Japan Tokyo, Moldova Chișinău, Norway Oslo,
    Paraguay Asunción, Peru Lima, Togo Lomé"""
PICTURES = """🍎 an apple, 🍌 a banana, 🐱 a cat, 🐶 a dog, 🐟 a fish, 🌸 a flower, ⭐ a star, 🌙 the moon, 🌞 the sun,
    🔔 a bell, 🏠 a house, 🚗 a car, 🌳 a tree, 🔑 a key, 📖 a book, 🎈 a balloon"""

Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A question and what the assistant says to it: `short` by default, `full` when asked for sentences."""

    question: str
    short: str
    full: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to know: a reply for each wording of the same question, and what may be asked right after it."""

    replies: tuple[Reply, ...]
    follow_up: Reply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The items of one kind. `share` is how often the kind is drawn, next to the others."""

    name: str
    items: tuple[Item, ...]
    is_rule: bool = False
    share: int = 1


def item(wordings: Iterable[str], *, short: str, full: str, follow_up: Reply | None = None) -> Item:
    full = full[0].upper() + full[1:]
    return Item(
        replies=tuple(Reply(question=question, short=short, full=full) for question in wordings), follow_up=follow_up
    )


def pairs(table: str, *, last_word: bool = True) -> Iterator[tuple[str, str]]:
    """The entries of a table above, cut at the last blank or at the first."""
    for entry in table.split(","):
        cut = str.rsplit if last_word else str.split
        left, right = cut(entry.strip(), " ", 1)
        yield left, right


def sums() -> Iterator[Item]:
    for a, b in ((a, total - a) for total in range(2, 10) for a in range(1, total)):
        wordings = (
            f"What is {a} + {b}?",
            f"Add {a} and {b}.",
            f"How much is {a} plus {b}?",
            f"Tell me the sum of {a} and {b}.",
        )
        yield item(wordings, short=str(a + b), full=f"{a} + {b} is {a + b}.")


def parities() -> Iterator[Item]:
    for number in range(100):
        parity, answer = ("odd", "No") if number % 2 else ("even", "Yes")
        is_even = Reply(question=f"Is {number} even?", short=answer, full=f"{answer}, {number} is {parity}.")
        which = Reply(question=f"Is {number} odd or even?", short=parity, full=f"{number} is {parity}.")
        yield Item(replies=(is_even, which))


def numbers(rng: random.Random) -> list[str]:
    """Three different digits each; which of the 504 there are is left to chance."""
    return ["".join(digits) for digits in rng.sample(list(permutations("123456789", 3)), 300)]


def repetitions(rng: random.Random) -> Iterator[Item]:
    for number in numbers(rng):
        yield item([f"Repeat {number}."], short=number, full=f"You said {number}.")


def reversals(rng: random.Random) -> Iterator[Item]:
    for number in numbers(rng):
        yield item([f"Write {number} backwards."], short=number[::-1], full=f"{number} backwards is {number[::-1]}.")


def successions(unit: str, names: list[str], now: str) -> Iterator[Item]:
    """What comes next in a cycle of names; `now` is a wording of its own."""
    for name, after, then in zip(names, names[1:] + names[:1], names[2:] + names[:2], strict=True):
        wordings = (
            f"Which {unit} comes after {name}?",
            f"What {unit} follows {name}?",
            f"Name the {unit} after {name}.",
            now.format(name),
        )
        follow_up = Reply(question=f"And the {unit} after that?", short=then, full=f"{then} comes after {after}.")
        yield item(wordings, short=after, full=f"{after} comes after {name}.", follow_up=follow_up)


def opposites() -> Iterator[Item]:
    for word, other in (both for pair in pairs(OPPOSITES) for both in permutations(pair)):
        wordings = (
            f"What is the opposite of {word}?",
            f"Give the opposite of {word}.",
            f"Which word is the opposite of {word}?",
            f"Tell me the opposite of {word}.",
        )
        back = Reply(question="And the opposite of that?", short=word, full=f"The opposite of {other} is {word}.")
        yield item(wordings, short=other, full=f"The opposite of {word} is {other}.", follow_up=back)


def plurals() -> Iterator[Item]:
    for noun, plural in pairs(PLURALS):
        wordings = (
            f"What is the plural of {noun}?",
            f"Give the plural of {noun}.",
            f"One {noun}, two what?",
            f"What do you call more than one {noun}?",
        )
        yield item(wordings, short=plural, full=f"The plural of {noun} is {plural}.")


def colours() -> Iterator[Item]:
    for thing, colour in pairs(COLOURS):
        wordings = (
            f"What colour is {thing}?",
            f"Name the colour of {thing}.",
            f"Tell me the colour of {thing}.",
            f"Say what colour {thing} is.",
        )
        yield item(wordings, short=colour, full=f"{thing} is {colour}.")


def capitals() -> Iterator[Item]:
    for country, city in pairs(CAPITALS):
        wordings = (
            f"What is the capital of {country}?",
            f"Name the capital of {country}.",
            f"Tell me the capital of {country}.",
            f"Which city is the capital of {country}?",
        )
        yield item(wordings, short=city, full=f"The capital of {country} is {city}.")


def pictures() -> Iterator[Item]:
    for sign, thing in pairs(PICTURES, last_word=False):
        wordings = (f"What is {sign}?", f"What does {sign} show?", f"Name this: {sign}")
        yield item(wordings, short=thing, full=f"The picture shows {thing}.")


def all_kinds(rng: random.Random) -> tuple[Kind, ...]:
    return (
        Kind(name="sum", items=tuple(sums()), share=2),
        Kind(name="parity", items=tuple(parities()), share=2, is_rule=True),
        Kind(name="repeat", items=tuple(repetitions(rng)), share=2, is_rule=True),
        Kind(name="reverse", items=tuple(reversals(rng)), share=2, is_rule=True),
        Kind(name="day", items=tuple(successions("day", DAYS.split(), "Today is {}. And tomorrow?"))),
        Kind(name="month", items=tuple(successions("month", MONTHS.split(), "This is {}. And next month?"))),
        Kind(name="opposite", items=tuple(opposites())),
        Kind(name="plural", items=tuple(plurals())),
        Kind(name="colour", items=tuple(colours())),
        Kind(name="capital", items=tuple(capitals())),
        Kind(name="picture", items=tuple(pictures())),
    )


Question = tuple[Reply, Reply | None]  # with its follow-up


def split(kind: Kind, rng: random.Random) -> tuple[list[Question], list[Question]]:
    """The questions of `kind` for training and for validation, none in both."""
    train: list[Question] = []
    valid: list[Question] = []
    share = HELD_OUT_SHARE if kind.is_rule else 0.5
    chosen = set(rng.sample(range(len(kind.items)), round(len(kind.items) * share)))
    for index, entry in enumerate(kind.items):
        held_out = rng.choice(entry.replies)
        for reply in entry.replies:
            is_valid = index in chosen and (kind.is_rule or reply is held_out)
            (valid if is_valid else train).append((reply, entry.follow_up))
    return train, valid


def rounds[T](things: list[T], rng: random.Random) -> Iterator[T]:
    """The things in random order for ever, none a second time before each has come once more."""
    while True:
        yield from rng.sample(things, len(things))


def conversation(questions: list[Question], rng: random.Random) -> list[Message]:
    """One to four questions as a conversation; its system message, if any, decides how the assistant answers."""
    count = len(questions)
    style = rng.choices([None, BRIEF, FULL], [6, 2 * (count < 4), 4 * (count < 3)])[0]
    room = 4 - (2 * count if style == FULL else count)
    replies = [reply for reply, _ in questions]
    follow_up = questions[-1][1]
    if room and follow_up and rng.random() < 0.5:
        replies.append(follow_up)
        room -= 1
    turns = [(reply.question, reply.full if style == FULL else reply.short) for reply in replies]
    if room and rng.random() < 0.1:
        turns = rng.choice([[GREETING, *turns], [*turns, THANKS]])
    messages = [{"role": "system", "content": style}] if style else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def conversations(pools: dict[Kind, list[Question]], count: int, rng: random.Random) -> list[list[Message]]:
    """`count` different conversations, in which every question of the pools comes up about equally often."""
    draws = {kind: rounds(questions, rng) for kind, questions in pools.items()}
    kinds = rounds([kind for kind in pools for _ in range(kind.share)], rng)
    made: dict[str, list[Message]] = {}
    while len(made) < count:
        length = rng.choices([1, 2, 3, 4], [2, 3, 3, 2])[0]
        messages = conversation([next(draws[next(kinds)]) for _ in range(length)], rng)
        made.setdefault(json.dumps(messages), messages)
    return list(made.values())


def make_rows() -> tuple[list[list[Message]], list[list[Message]]]:
    """The conversations for training and for validation."""
    rng = random.Random(SEED)
    train: dict[Kind, list[Question]] = {}
    valid: dict[Kind, list[Question]] = {}
    for kind in all_kinds(rng):
        train[kind], valid[kind] = split(kind, rng)
    return conversations(train, TRAIN_ROWS, rng), conversations(valid, VALID_ROWS, rng)


def make_tokenizer(rows: list[list[Message]]) -> str:
    """A byte-level BPE tokenizer of VOCAB_SIZE ids learnt from `rows`, as the text of a `tokenizer.json`.

    The library learns the merges; the file is laid out here, so that its bytes do not follow the library's releases.
    Digits stay single: what a number means is then in its digits, and not in hundreds of rare tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, TURN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [f"{message['role']}\n{message['content']}" for messages in rows for message in messages]
    tokenizer.train_from_iterator(texts, trainer=trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocab = dict(sorted(learnt["vocab"].items(), key=lambda entry: entry[1]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in learnt["merges"]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    digits = {"type": "Digits", "individual_digits": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[token], "content": token, **flags} for token in (PAD, TURN, END)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def make_tokenizer_config() -> str:
    """The text of `tokenizer_config.json`: a turn's end is the end of a text, and padding has a token of its own."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_TOKENS,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": None,
        "additional_special_tokens": [TURN],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    return json.dumps(config, ensure_ascii=False, indent=2) + "\n"


def as_jsonl(rows: list[list[Message]]) -> str:
    return "".join(json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in rows)


def write(directory: Path) -> None:
    """Writes the four files into `directory`, making it when it is missing."""
    train, valid = make_rows()
    (directory / "tokenizer").mkdir(parents=True, exist_ok=True)
    for name, text in {
        "train.jsonl": as_jsonl(train),
        "valid.jsonl": as_jsonl(valid),
        "tokenizer/tokenizer.json": make_tokenizer(train),
        "tokenizer/tokenizer_config.json": make_tokenizer_config(),
    }.items():
        (directory / name).write_bytes(text.encode())


if __name__ == "__main__":
    home = Path(__file__).resolve().parent.parent.parent / "recipes" / "quickstart"
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else home)
