"""What the legitimate programs find as their context: texts and data of the usual kinds, small.

Made by arithmetic, not by chance, so that a program can state what it must find.
"""

from __future__ import annotations

from orchestrator.domain import Context, Json

TEXT = """\
# Chapter 1: The Harbour
Alice Moore met Bob Stone on 2024-03-05 at the harbour. The magic number is 48213.
They spoke about the tide, the wind and the price of salt.

# Chapter 2: The Letter
On 2023-12-24 a letter came. Alice read it twice, and the lamp burned low.
Nobody else in the town had seen the blue seal on the envelope before.

# Chapter 3: The Road
The road to the hills was long. Write to stone@example.org before 2024-11-30.
"""

_LEVELS = ("INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "INFO", "ERROR")
_SERVICES = ("auth", "cart", "search", "billing", "mail")
_PATHS = ("/login", "/cart/add", "/find?q=tea", "/pay", "/send", "/logout")


def _log() -> str:
    lines = []
    for number in range(240):
        level = _LEVELS[number * 5 % 8]
        status = 500 if level == "ERROR" else 404 if level == "WARN" else 200
        lines.append(
            f"2024-05-{1 + number // 80:02d}T{number % 80 // 10 + 8:02d}:{number * 7 % 60:02d}:"
            f"{number * 13 % 60:02d}Z {level} [{_SERVICES[number * 3 % 5]}] "
            f"user=u{number % 12:02d} path={_PATHS[number % 6]} status={status} "
            f"took={number * 37 % 900 + 3}ms"
        )
    return "\n".join(lines) + "\n"


_CITIES = ("Lübeck", "Porto", "Graz", "Århus")


def _table() -> str:
    rows = ["id,name,city,joined,amount,note"]
    for number in range(1, 41):
        note = '"paid, late"' if number % 7 == 0 else '"says ""hello"""' if number % 11 == 0 else ""
        amount = "" if number % 13 == 0 else f"{number * 3.25:.2f}"
        rows.append(
            f"{number},Person {number:02d},{_CITIES[number % 4]},"
            f"20{20 + number % 4}-{1 + number % 12:02d}-{1 + number % 28:02d},{amount},{note}"
        )
    return "\r\n".join(rows) + "\r\n"


def _haystack() -> str:
    subjects = ("The mill", "A ferry", "The old clerk", "One lamp", "The orchard")
    verbs = ("waited by", "was seen near", "belongs to", "faced", "kept")
    places = ("the river", "a quarry", "the north gate", "the market", "a chapel", "the bridge")
    sentences = [
        f"{subjects[n % 5]} {verbs[n * 3 % 5]} {places[n * 5 % 6]} in year {1700 + n * 7 % 290}."
        for n in range(3600)
    ]
    sentences[2222] = "Remember: the vault opens with the phrase 'copper heron 73'."
    return "\n\n".join(" ".join(sentences[start : start + 12]) for start in range(0, 3600, 12))


_TOPICS = ("tides", "glass", "bread", "rails")


def _records() -> list[Json]:
    return [
        {
            "id": number,
            "title": f"On {_TOPICS[number % 4]}, part {number // 4 + 1}",
            "year": 1990 + number * 5 % 31,
            "tags": [_TOPICS[number % 4], *(["review"] if number % 3 == 0 else [])],
            "author": {"name": f"Author {number % 5}", "active": number % 2 == 0},
            "score": None if number % 8 == 5 else round(number * 0.37, 2),
        }
        for number in range(24)
    ]


CODE: dict[str, Json] = {
    "README.md": "# Tea shop\n\nRun `python -m shop`.\n\nTODO: write about prices.\n",
    "shop/__init__.py": '"""A small shop."""\n\n__version__ = "1.4.2"\n',
    "shop/prices.py": (
        "import json\nfrom decimal import Decimal\n\nTAX = Decimal('0.19')\n\n\n"
        "def gross(net):\n    # TODO: round half even\n    return net * (1 + TAX)\n\n\n"
        "def load(path):\n    with open(path) as file:\n        return json.load(file)\n"
    ),
    "shop/cart.py": (
        "from shop.prices import gross\n\n\nclass Cart:\n    def __init__(self):\n"
        "        self.items = []\n\n    def add(self, name, net, count=1):\n"
        "        self.items.append((name, net, count))\n\n    def total(self):\n"
        "        return sum(gross(net) * count for _, net, count in self.items)\n"
    ),
    "tests/test_cart.py": (
        "from shop.cart import Cart\n\n\ndef test_empty():\n    assert Cart().total() == 0\n"
    ),
}

MAIL = """\
From: Ada Lind <ada@example.org>
To: team@example.org
Subject: Delivery on Friday
Date: Mon, 06 May 2024 09:15:00 +0200
Message-ID: <1@example.org>
Content-Type: text/plain; charset=utf-8

The truck comes on Friday at 10.
Please bring the two blue crates.
--
Ada
=====
From: =?utf-8?q?J=C3=B6rg_Beck?= <joerg@example.org>
To: team@example.org
Subject: Re: Delivery on Friday
Date: Mon, 06 May 2024 11:40:00 +0200
Message-ID: <2@example.org>
In-Reply-To: <1@example.org>

> The truck comes on Friday at 10.
I can be there at 9:30. The crates weigh 14 kg each.
=====
From: Mia Sol <mia@example.net>
To: ada@example.org
Subject: Invoice 2024-117
Date: Tue, 07 May 2024 16:05:00 +0000
Message-ID: <3@example.net>

Total due: EUR 1,284.50 until 2024-06-01.
"""

JSON_LINES = "".join(
    '{"id": 7, "kind": "click", "value": \n'
    if number == 7
    else f'{{"id": {number}, "kind": "{("view", "click", "buy")[number * 2 % 3]}", '
    f'"value": {number * 1.5}, "user": "u{number % 4}"}}\n'
    for number in range(30)
)

CONTEXTS: dict[str, Context] = {
    "text": TEXT,
    "documents": ["The weather was fair.", "Budget: the budget grew.", "No budget was left here."],
    "data": {
        "user": {"name": "Ann", "tags": ["a", "b"]},
        "orders": [{"id": 1, "total": 10.0}, {"id": 2, "total": 20.5}],
    },
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the tide?"},
        {"role": "assistant", "content": "High."},
    ],
    "log": _log(),
    "table": _table(),
    "haystack": _haystack(),
    "records": _records(),
    "code": CODE,
    "mail": MAIL,
    "jsonl": JSON_LINES,
}
