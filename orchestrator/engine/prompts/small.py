"""The texts for models of one or two billion parameters.

Without it such a model gets prose and answers in prose, with values it never computed. It follows
examples, not instructions: a short system message, then turns that hold code and nothing else.
"""

# Measured with Qwen2.5-Coder-1.5B-Instruct Q4_K_M, greedy, over 12.6 million characters of Python
# source, each question once, judged by program; a loop like the engine's, outside the sandbox:
#   report a planted sentence   7 of 8   (missed: searched "password", which is everywhere)
#   count lines                10 of 10
#   let the sub-model judge     6 of 7   (missed: spelt it "disatisfied")
# and 5 of 5 over 31.6 million characters. The texts were written while some of these questions were
# being tried; 11 of the 25 were first asked of this or the version before it. Every run took two
# turns. Not tried: comparisons, sums over many passages, contexts other than a str.

from __future__ import annotations

from orchestrator.chat import Message

SYSTEM = (
    "You answer questions about a huge text held in the Python variable `context` (str). "
    "Reply with exactly one ```repl block of Python and nothing else. "
    "Search or count with code over the whole of `context`; print what you find. "
    "`llm_query(prompt)` asks a language model to judge a short piece of text and returns its "
    "reply. When the output shows the answer, call FINAL(value)."
)

#: Stands before the probe. The question follows the probe's output in the same message: asked
#: before it, the model took that output for its own result and answered 4 of 16 questions.
OPENING = "A new text is loaded in `context`. Look at its size and its beginning."
PROBE_SOURCE = "print(type(context).__name__, len(context))\nprint(context[:100])"

_COUNT = """\
n = sum(1 for line in context.splitlines() if line.startswith("WARN"))
print(n)"""

_SEARCH = """\
import re
for m in re.finditer(r"(?i)boathouse", context):
    print(context[max(0, m.start() - 150):m.end() + 150])
    print("--")"""

# The passage stands before the question, and is short: with 800 characters of other text around it
# the model overlooked what the passage said.
_JUDGE = """\
import re
m = re.search(r"(?i)Ursula Brandt", context)
piece = context[max(0, m.start() - 50):m.end() + 250]
reply = llm_query(piece + "\\n\\nDoes the writer sound grateful or disappointed? \
Answer with one word.")
print(reply)"""

_SEARCH_AGAIN = _SEARCH.replace("boathouse", "silver-heron")


def _shot(question: str, cell: str, output: str, final: str) -> tuple[Message, ...]:
    return (
        Message("user", f"Question: {question}"),
        Message("assistant", f"```repl\n{cell}\n```"),
        Message("user", f"REPL output:\n{output}"),
        Message("assistant", f"```repl\n{final}\n```"),
    )


# Two searches around one judgement: with a single search, plain questions went to the sub-model
# too, which was asked for "one word" and gave half an answer, or refused to tell a "password".
FEW_SHOT = (
    *_shot('How many lines start with "WARN"?', _COUNT, "317", "FINAL(n)"),
    *_shot(
        "Somewhere it says what the door code of the boathouse is. What is the code?",
        _SEARCH,
        "... rowing ends at dusk. The door code of the boathouse is 58-amber. Please lock ...\n--",
        'FINAL("58-amber")',
    ),
    *_shot(
        "Find the letter signed by Ursula Brandt. Let the sub-model say whether she sounds "
        "grateful or disappointed.",
        _JUDGE,
        "grateful",
        "FINAL(reply)",
    ),
    *_shot(
        "What is the access number for silver-heron?",
        _SEARCH_AGAIN,
        "... of the year. Note: the access number for silver-heron is 40917. All other ...\n--",
        'FINAL("40917")',
    ),
)
