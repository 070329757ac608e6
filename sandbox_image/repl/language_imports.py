"""Which modules a cell may import under `guarded`, and what to write instead of the others.

Without it a model that reaches for pandas, requests or subprocess would read a bare
ModuleNotFoundError and try the next package that is not there either.
"""

from __future__ import annotations

import sys
from typing import Final

from sandbox_image.repl.language_refusals import Advice


def _words(text: str) -> list[str]:
    return text.split()


#: Of the standard library, what helps to read, cut, count, compare and keep text and data. A
#: submodule follows its parent unless `REFUSED_MODULES` names it. `os`, `shutil` and `sys` are
#: here because models write them without thought and the container is the wall: a facade that
#: has half of `os` would refuse honest programs and stop nobody.
ALLOWED_MODULES: Final = frozenset(
    _words("""
    __future__ abc array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections
    colorsys concurrent configparser contextlib contextvars copy csv dataclasses datetime decimal
    difflib email enum errno fnmatch fractions functools gc glob graphlib gzip hashlib heapq hmac
    html http inspect io ipaddress itertools json keyword linecache locale logging lzma math
    mimetypes multiprocessing numbers operator os pathlib plistlib posixpath pprint queue quopri
    random re reprlib sched secrets shlex shutil sqlite3 stat statistics string stringprep struct
    sys tarfile tempfile textwrap threading time timeit token tokenize tomllib traceback types
    typing unicodedata urllib uuid warnings weakref xml zipfile zlib zoneinfo
    """)
)

_NOT_INSTALLED = "it is not installed"
_NO_NETWORK = Advice("there is no network here", "ask llm_query(prompt), or read `context`")
_NO_PROGRAMS = Advice("there is no shell and no other program here", "do it in Python")
_TABLES = Advice(
    _NOT_INSTALLED,
    "read tables with csv or json, count with collections.Counter, "
    "average with statistics, join with sqlite3 (':memory:')",
)
_ASK = Advice(_NOT_INSTALLED, "llm_query(prompt) is how a cell asks a model")
_TEXT = Advice(_NOT_INSTALLED, "split text with re and str methods, or ask llm_query(prompt)")
_LEARN = Advice(_NOT_INSTALLED, "use math, statistics and random, or ask llm_query(prompt)")
_NO_DISPLAY = Advice("there is no display and no terminal here", "print(...) what you want to see")
_PICKLE = Advice("pickled data runs code when loaded", "use json.dumps and json.loads")
_BOUND = Advice("the names of this REPL are bound already", "use them without an import")
_LIMITS = Advice(
    "the host sets the limits of this sandbox, a cell cannot", "use less time or memory"
)
_LOADING = Advice("modules are loaded one way only", "write a plain `import name`")
_BUILTINS = Advice(
    "the builtin functions are bound already",
    "use them by name; `del name` gives back one that a variable of yours hides",
)
_DEBUG = Advice("nobody is there to debug", "print(...) what you want to see")
_NO_ARGUMENTS = Advice("a cell has no command line", "set the values as variables")
_FRAMES = Advice("", "traceback.format_exc() says where an error came from")

REFUSED_MODULES: Final[dict[str, Advice]] = {
    name: advice
    for advice, names in {
        _NO_NETWORK: """
            socket ssl select selectors socketserver ftplib smtplib poplib imaplib nntplib
            telnetlib xmlrpc wsgiref webbrowser urllib.request urllib.error urllib.robotparser
            http.client http.server http.cookiejar logging.handlers requests httpx aiohttp
            urllib3 websockets boto3 paramiko selenium playwright
        """,
        _NO_PROGRAMS: "subprocess pty asyncio.subprocess pexpect sh",
        _TABLES: "numpy pandas polars pyarrow openpyxl xlrd duckdb",
        _ASK: "openai anthropic litellm langchain langchain_core cohere mistralai ollama google",
        _TEXT: "nltk spacy gensim textblob sentence_transformers transformers",
        _LEARN: "scipy sklearn torch tensorflow jax networkx sympy",
        _NO_DISPLAY: "matplotlib seaborn plotly PIL tkinter turtle curses readline IPython rich",
        _PICKLE: "pickle _pickle cPickle marshal shelve dill cloudpickle joblib copyreg dbm",
        _BOUND: "context llm_query llm_query_batched rlm repl answer FINAL",
        _LIMITS: "resource signal",
        _LOADING: "importlib imp runpy pkgutil zipimport site pip setuptools",
        _BUILTINS: "builtins",
        _DEBUG: "pdb bdb code codeop faulthandler trace tracemalloc",
        _NO_ARGUMENTS: "argparse optparse getopt",
        Advice("", "use assert"): "unittest doctest pytest",
        Advice("", "measure with time.perf_counter()"): "cProfile profile pstats",
        Advice("", "write it in Python"): "ctypes cffi numba",
        Advice("`context` is in memory already", "for files use open(...)"): "mmap",
        Advice("nothing runs after the cell", "print(...) before it ends"): "atexit",
        Advice("", "use sys.version and sys.platform"): "platform sysconfig",
        Advice(_NOT_INSTALLED, "use `re`"): "regex re2",
        Advice(_NOT_INSTALLED, "use json"): "ujson orjson simplejson demjson3 json5",
        Advice(_NOT_INSTALLED, "parse with re, or use json or tomllib"): "yaml ruamel toml",
        Advice(_NOT_INSTALLED, "use html.parser or re"): "bs4 lxml html5lib markdownify",
        Advice(_NOT_INSTALLED, "use datetime and zoneinfo"): "dateutil pytz pendulum arrow",
        Advice(_NOT_INSTALLED, "use difflib"): "rapidfuzz fuzzywuzzy thefuzz Levenshtein jellyfish",
        Advice(_NOT_INSTALLED, "len(text) // 4 is near enough"): "tiktoken",
        Advice(_NOT_INSTALLED, "print(...) a line now and then"): "tqdm",
        Advice(_NOT_INSTALLED, "align with f-strings: f'{name:<20}'"): "tabulate prettytable",
        Advice(_NOT_INSTALLED, "use dataclasses"): "pydantic attr attrs",
        Advice(_NOT_INSTALLED, "use typing"): "typing_extensions",
        Advice(_NOT_INSTALLED, "use itertools"): "more_itertools toolz",
        Advice(
            "it is not installed and `context` is text already", "work on `context`"
        ): "PyPDF2 pypdf pdfplumber fitz docx",
    }.items()
    for name in names.split()
}

#: Members of allowed modules that cannot work here or lead into the interpreter.
REFUSED_MEMBERS: Final[dict[str, dict[str, Advice]]] = {
    "os": dict.fromkeys(
        _words("""
            system popen execl execle execlp execlpe execv execve execvp execvpe posix_spawn
            posix_spawnp spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe
        """),
        _NO_PROGRAMS,
    ),
    "sys": {
        "modules": Advice("", "import what you need; globals() has your own names"),
        "settrace": _DEBUG,
        "setprofile": Advice("", "measure with time.perf_counter()"),
    }
    | dict.fromkeys(
        ("_getframe", "_current_frames", "_current_exceptions", "_getframemodulename"),
        _FRAMES,
    ),
    "inspect": dict.fromkeys(
        ("currentframe", "stack", "trace", "getouterframes", "getinnerframes", "getclosurevars"),
        _FRAMES,
    ),
    "asyncio": dict.fromkeys(("create_subprocess_exec", "create_subprocess_shell"), _NO_PROGRAMS)
    | dict.fromkeys(("open_connection", "start_server"), _NO_NETWORK),
    "gc": dict.fromkeys(
        ("get_objects", "get_referents", "get_referrers"),
        Advice("it leads into the interpreter", "keep what you need in variables"),
    ),
}

#: Every name in `REFUSED_MEMBERS`, and the last part of every refused submodule: what a check of
#: an attribute has to look at before it asks what the object is.
SUSPECT_MEMBERS: Final = frozenset(
    [member for members in REFUSED_MEMBERS.values() for member in members]
    + [name.rpartition(".")[2] for name in REFUSED_MODULES if "." in name]
)


def advice_against_module(name: str) -> Advice | None:
    """Says what to write instead of importing `name`, or None where it may be imported.

    Args:
        name: A dotted module name; each of its parents has to be importable too.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if advice := REFUSED_MODULES.get(".".join(parts[:length])):
            return advice
    top = parts[0]
    if top in ALLOWED_MODULES:
        return None
    if top in sys.stdlib_module_names:
        why, instead = "it is not among the modules for cells", "use re, json, collections, csv …"
    else:
        why, instead = _NOT_INSTALLED, "use the standard library: re, json, collections, csv …"
    import difflib  # noqa: PLC0415 - few cells are refused, and every process would have it

    if similar := difflib.get_close_matches(top, ALLOWED_MODULES, n=1, cutoff=0.8):
        instead = f"did you mean `{similar[0]}`? If not, {instead}"
    return Advice(why, instead)


def advice_against_member(module: str, member: str) -> Advice | None:
    """Says what to write instead of `module.member`, or None where it may be used.

    Args:
        module: Dotted name of a module, or any other name: nothing is refused then.
        member: What is read from it or imported from it; also a submodule.
    """
    if advice := REFUSED_MEMBERS.get(module, {}).get(member):
        return advice
    return REFUSED_MODULES.get(f"{module}.{member}")
