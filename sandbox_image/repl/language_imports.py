"""Which modules a cell may import under `guarded`, and what to write instead of the others.

Without it a model that reaches for pandas, requests or subprocess would read a bare
ModuleNotFoundError and try the next package that is not there either.
"""

from __future__ import annotations

import difflib
import sys


def _words(text: str) -> list[str]:
    return text.split()


#: Of the standard library, what helps to read, cut, count, compare and keep text and data. A
#: submodule follows its parent unless `_REFUSED_MODULES` names it. `os`, `shutil` and `sys` are
#: here because models write them without thought and the container is the wall: a facade that
#: has half of `os` would refuse honest programs and stop nobody.
ALLOWED_MODULES = frozenset(
    _words("""
    __future__ abc array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections
    colorsys concurrent configparser contextlib contextvars copy csv dataclasses datetime decimal
    difflib email enum errno fnmatch fractions functools glob graphlib gzip hashlib heapq hmac html
    http inspect io ipaddress itertools json keyword linecache locale logging lzma math mimetypes
    numbers operator os pathlib plistlib posixpath pprint queue quopri random re reprlib sched
    secrets shlex shutil sqlite3 stat statistics string stringprep struct sys tarfile tempfile
    textwrap threading time timeit token tokenize tomllib traceback types typing unicodedata urllib
    uuid warnings weakref xml zipfile zlib zoneinfo
    """)
)

_NO_NETWORK = "there is no network here; ask llm_query(prompt), or read `context`"
_NO_PROGRAMS = "there is no shell and no other program here; do it in Python"
_TABLES = (
    "it is not installed; read tables with csv or json, count with collections.Counter, "
    "average with statistics, join with sqlite3 (':memory:')"
)
_ASK = "it is not installed; llm_query(prompt) is how a cell asks a model"
_TEXT = "it is not installed; split text with re and str methods, or ask llm_query(prompt)"
_LEARN = "it is not installed; use math, statistics and random, or ask llm_query(prompt)"
_NO_DISPLAY = "there is no display and no terminal here; print(...) what you want to see"
_PICKLE = "pickled data runs code when loaded; use json.dumps and json.loads"
_BOUND = "the names of this REPL are bound already; use them without an import"
_PROCESSES = (
    "processes of your own gain nothing on one CPU; use "
    "concurrent.futures.ThreadPoolExecutor, or llm_query_batched(prompts) for many queries"
)
_LIMITS = "the host sets the limits of this sandbox, a cell cannot; use less time or memory"
_LOADING = "modules are loaded with a plain `import name` only"
_DEBUG = "nobody is there to debug; print(...) what you want to see"
_NO_ARGUMENTS = "a cell has no command line; set the values as variables"

_REFUSED_MODULES: dict[str, str] = {
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
        _PROCESSES: "multiprocessing concurrent.futures.process",
        _LIMITS: "resource signal",
        _LOADING: "importlib imp runpy pkgutil zipimport site builtins pip setuptools",
        _DEBUG: "pdb bdb code codeop faulthandler trace tracemalloc",
        _NO_ARGUMENTS: "argparse optparse getopt",
        "use assert": "unittest doctest pytest",
        "measure with time.perf_counter()": "cProfile profile pstats",
        "`del` a name and its memory is free; no collection is needed": "gc",
        "write it in Python": "ctypes cffi numba",
        "`context` is in memory already; for files use open(...)": "mmap",
        "print(...) before the cell ends, nothing runs after it": "atexit",
        "use sys.version and sys.platform": "platform sysconfig",
        "it is not installed; use `re`": "regex re2",
        "it is not installed; use json": "ujson orjson simplejson demjson3 json5",
        "it is not installed; parse with re, or use json or tomllib": "yaml ruamel toml",
        "it is not installed; use html.parser or re": "bs4 lxml html5lib markdownify",
        "it is not installed; use datetime and zoneinfo": "dateutil pytz pendulum arrow",
        "it is not installed; use difflib": "rapidfuzz fuzzywuzzy thefuzz Levenshtein jellyfish",
        "it is not installed; len(text) // 4 is near enough": "tiktoken",
        "it is not installed; print(...) a line now and then": "tqdm",
        "it is not installed; align with f-strings: f'{name:<20}'": "tabulate prettytable",
        "it is not installed; use dataclasses": "pydantic attr attrs",
        "it is not installed; use typing": "typing_extensions",
        "it is not installed; use itertools": "more_itertools toolz",
        "`context` is text already": "PyPDF2 pypdf pdfplumber fitz docx",
    }.items()
    for name in names.split()
}

#: Members of allowed modules that cannot work here or lead into the interpreter.
_REFUSED_MEMBERS: dict[str, dict[str, str]] = {
    "os": dict.fromkeys(
        _words("""
            system popen execl execle execlp execlpe execv execve execvp execvpe posix_spawn
            posix_spawnp spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe
        """),
        _NO_PROGRAMS,
    ),
    "sys": {
        "modules": "import what you need; globals() has your own names",
        "settrace": _DEBUG,
        "setprofile": "measure with time.perf_counter()",
    }
    | dict.fromkeys(
        ("_getframe", "_current_frames", "_current_exceptions", "_getframemodulename"),
        "traceback.format_exc() says where an error came from",
    ),
    "inspect": dict.fromkeys(
        ("currentframe", "stack", "trace", "getouterframes", "getinnerframes", "getclosurevars"),
        "traceback.format_exc() says where an error came from",
    ),
    "asyncio": dict.fromkeys(("create_subprocess_exec", "create_subprocess_shell"), _NO_PROGRAMS)
    | dict.fromkeys(("open_connection", "start_server"), _NO_NETWORK),
    "concurrent.futures": {"ProcessPoolExecutor": _PROCESSES},
}

#: Every name in `_REFUSED_MEMBERS`, and the last part of every refused submodule: what a check of
#: an attribute has to look at before it asks what the object is.
SUSPECT_MEMBERS = frozenset(
    [member for members in _REFUSED_MEMBERS.values() for member in members]
    + [name.rpartition(".")[2] for name in _REFUSED_MODULES if "." in name]
)


def why_module_is_refused(name: str) -> str | None:
    """Says what to write instead of importing `name`, or None where it may be imported.

    Args:
        name: A dotted module name; each of its parents has to be importable too.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if advice := _REFUSED_MODULES.get(".".join(parts[:length])):
            return advice
    top = parts[0]
    if top in ALLOWED_MODULES:
        return None
    similar = difflib.get_close_matches(top, ALLOWED_MODULES, n=1, cutoff=0.8)
    hint = f"; did you mean `{similar[0]}`?" if similar else ""
    if top in sys.stdlib_module_names:
        return f"it is not among the modules for cells, such as re, json, collections, csv{hint}"
    return f"it is not installed; cells have the standard library (re, json, csv, ...){hint}"


def why_member_is_refused(module: str, member: str) -> str | None:
    """Says what to write instead of `module.member`, or None where it may be used.

    Args:
        module: Dotted name of a module, or any other name: nothing is refused then.
        member: What is read from it or imported from it; also a submodule.
    """
    if advice := _REFUSED_MEMBERS.get(module, {}).get(member):
        return advice
    return _REFUSED_MODULES.get(f"{module}.{member}")
