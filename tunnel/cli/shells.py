"""Completion scripts for bash, zsh and fish.

The scripts do not run the program, so completion is fast and works where the program cannot start. Each has a table with the
contexts of `completion.py` (the words and flags to offer, the next contexts, the flags with a value), and a loop over the words
of the line from context to context. The names of contexts are constants, never user input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tunnel.cli.completion import REST, ROOT, Context, ValueHint

Contexts = Mapping[str, Context]

_BASH = """\
# Completion of PROGRAM for bash, made by 'PROGRAM completion bash'.

_PROGRAM_at() {
  offers=() flags=() place='' onward=$1
  next=() takes=()
  case $1 in
%s
  esac
}

_PROGRAM() {
  local -a line offers flags
  local -A next takes
  local place onward context='-' awaited='' word words replaced part kind i
  read -ra line <<<"${COMP_LINE:0:COMP_POINT}"
  case ${COMP_LINE:0:COMP_POINT} in *[[:space:]]) line+=('') ;; esac
  words=$((${#line[@]} - 1))
  word=${line[words]}
  _PROGRAM_at "$context"
  for ((i = 1; i < words; i++)); do
    if [[ -n $awaited ]]; then
      awaited=''
      continue
    fi
    awaited=${takes[${line[i]}]-}
    if [[ -n ${next[${line[i]:-?}]-} ]]; then
      context=${next[${line[i]}]}
    elif [[ ${line[i]} != -* ]]; then
      context=$onward
    fi
    _PROGRAM_at "$context"
    if [[ $context == '--' ]]; then
      if declare -F _command_offset >/dev/null; then
        for ((i = 1; i < COMP_CWORD; i++)); do
          if [[ ${COMP_WORDS[i]} == '--' ]]; then
            _command_offset $((i + 1))
            return
          fi
        done
      fi
      [[ ${line[words - 1]} == '--' ]] && mapfile -t COMPREPLY < <(compgen -c -- "$word")
      compopt -o filenames
      mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$word")
      return
    fi
  done
  # bash replaces only the part behind the last character that separates words for it, such as = and :
  part=${COMP_WORDS[COMP_CWORD]}
  case $part in = | :) part='' ;; esac
  replaced=${word%%"$part"}
  kind=$awaited
  if [[ -z $kind && $word == --*=* ]]; then
    kind=${takes[${word%%%%=*}]-any}
    word=${word#*=}
    replaced=${replaced#*=}
  elif [[ -z $kind ]]; then
    kind=${place:-any}
    [[ $word == -* || ( ${#offers[@]} -eq 0 && $kind == any ) ]] && offers=("${flags[@]}") kind=''
    mapfile -t COMPREPLY < <(compgen -W "${offers[*]}" -- "$word")
  fi
  case $kind in
    file | dir)
      compopt -o filenames
      [[ $kind == file ]] && i=-f || i=-d
      mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen $i -- "$word")
      ;;
    '='*) mapfile -t COMPREPLY < <(compgen -W "${kind#=}" -- "$word") ;;
  esac
  COMPREPLY=("${COMPREPLY[@]#"$replaced"}")
}

complete -F _PROGRAM PROGRAM
"""

_ZSH = """\
#compdef PROGRAM
# Completion of PROGRAM for zsh, made by 'PROGRAM completion zsh'.

_PROGRAM_at() {
  offers=() flags=() place='' onward=$1
  next=() takes=()
  case $1 in
%s
  esac
}

_PROGRAM() {
  local -a offers flags
  local -A next takes
  local place onward context='-' awaited='' word kind
  integer i
  _PROGRAM_at "$context"
  for ((i = 2; i < CURRENT; i++)); do
    if [[ -n $awaited ]]; then
      awaited=''
      continue
    fi
    word=${(Q)words[i]}
    awaited=${takes[$word]-}
    if [[ -n ${next[$word]-} ]]; then
      context=${next[$word]}
    elif [[ $word != -* ]]; then
      context=$onward
    fi
    _PROGRAM_at "$context"
    if [[ $context == '--' ]]; then
      shift i words
      (( CURRENT -= i ))
      _normal
      return
    fi
  done
  word=${words[CURRENT]}
  kind=$awaited
  if [[ -z $kind && $word == --*=* ]]; then
    kind=${takes[${word%%%%=*}]-any}
    compset -P '*='
  elif [[ -z $kind ]]; then
    kind=${place:-any}
    if [[ $word == -* || ( ${#offers} -eq 0 && $kind == any ) ]]; then
      _describe -o 'flag' flags
      return
    fi
    _describe 'word' offers
  fi
  case $kind in
    file) _files ;;
    dir) _files -/ ;;
    '='*)
      offers=(${(s: :)${kind#=}})
      _describe 'value' offers
      ;;
  esac
}

if [[ ${funcstack[1]-} == _PROGRAM ]]; then
  _PROGRAM "$@"
else
  compdef _PROGRAM PROGRAM
fi
"""

_FISH = """\
# Completion of PROGRAM for fish, made by 'PROGRAM completion fish'.

function __PROGRAM_at --no-scope-shadowing
    set offers
    set flags
    set next
    set takes
    set place ''
    set onward $argv[1]
    switch $argv[1]
%s
    end
end

function __PROGRAM_complete
    set -l line (commandline -opc)
    set -l word (commandline -ct)
    set -l context -
    set -l awaited ''
    set -l offers
    set -l flags
    set -l next
    set -l takes
    set -l place ''
    set -l onward ''
    set -l at 1
    __PROGRAM_at $context
    for known in $line[2..-1]
        set at (math $at + 1)
        if test -n "$awaited"
            set awaited ''
            continue
        end
        set awaited (__PROGRAM_lookup $known $takes)
        set -l to (__PROGRAM_lookup $known $next)
        if test -n "$to"
            set context $to
        else if not string match -q -- '-*' $known
            set context $onward
        end
        __PROGRAM_at $context
        if test "$context" = --
            set -l rest (string escape -- $line[(math $at + 1)..-1]) $word
            complete -C (string join ' ' -- $rest)
            return
        end
    end
    set -l kind $awaited
    set -l before ''
    if test -z "$kind"; and string match -q -- '--*=*' $word
        set -l parts (string split -m 1 = -- $word)
        set kind (__PROGRAM_lookup $parts[1] $takes)
        set before $parts[1]=
        set word $parts[2]
    else if test -z "$kind"
        if string match -q -- '-*' $word; or test -z "$offers" -a \\( -z "$place" -o "$place" = any \\)
            printf '%%s\\n' $flags
            return
        end
        test -n "$offers"; and printf '%%s\\n' $offers
        set kind $place
    end
    switch "$kind"
        case file
            __fish_complete_path $word | string replace -r '^' -- $before
        case dir
            __fish_complete_directories $word | string replace -r '^' -- $before
        case '=*'
            printf '%%s\\n' $before(string split ' ' -- (string sub -s 2 -- $kind))
    end
end

function __PROGRAM_lookup
    for pair in $argv[2..-1]
        set -l parts (string split -m 1 \\t -- $pair)
        if test "$parts[1]" = "$argv[1]"
            printf '%%s\\n' $parts[2]
            return
        end
    end
    printf '\\n'
end

complete -c PROGRAM -e
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"""


def bash_script(program: str, contexts: Contexts) -> str:
    """The script for bash 4 and later, with or without bash-completion."""
    return _script(_BASH, program, contexts, _bash_case)


def zsh_script(program: str, contexts: Contexts) -> str:
    """The script for a directory of $fpath, or to be sourced after compinit."""
    return _script(_ZSH, program, contexts, _zsh_case)


def fish_script(program: str, contexts: Contexts) -> str:
    """The script for fish 3 and later."""
    return _script(_FISH, program, contexts, _fish_case)


SCRIPTS: Mapping[str, Callable[[str, Contexts], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}


def _script(template: str, program: str, contexts: Contexts, case: Callable[[Context], str]) -> str:
    cases = "\n".join(case(context) for context in contexts.values())
    return template.replace("PROGRAM", program) % cases


def _bash_case(context: Context) -> str:
    return _posix_case(
        context, *([text for text, _ in offered] for offered in (context.offered_words(), context.offered_flags()))
    )


def _zsh_case(context: Context) -> str:
    def described(offered: Iterable[tuple[str, str]]) -> list[str]:
        return [f"{text}:{description}" if description else text for text, description in offered]

    return _posix_case(context, described(context.offered_words()), described(context.offered_flags()))


def _posix_case(context: Context, words: Iterable[str], flags: Iterable[str]) -> str:
    lines = [
        f"    {_quoted(context.name)})",
        f"      offers=({' '.join(map(_quoted, words))})",
        f"      flags=({' '.join(map(_quoted, flags))})",
        f"      next=({_pairs(_next(context))})",
        f"      takes=({_pairs(_takes(context))})",
        *_settings(context, "      {}={}"),
        "      ;;",
    ]
    return "\n".join(lines)


def _fish_case(context: Context) -> str:
    lines = [
        f"        case {_fish_quoted(context.name)}",
        f"            set offers {_fish_list(context.offered_words())}",
        f"            set flags {_fish_list(context.offered_flags())}",
        f"            set next {_fish_list(_next(context))}",
        f"            set takes {_fish_list(_takes(context))}",
        *_settings(context, "            set {} {}"),
    ]
    return "\n".join(lines)


def _settings(context: Context, form: str) -> list[str]:
    found = [form.format("place", _quoted(_kind(context.positional)))] if context.positional else []
    return [*found, *([form.format("onward", _quoted(context.onward))] if context.onward else [])]


def _next(context: Context) -> list[tuple[str, str]]:
    return [(word.text, word.to) for word in context.words]


def _takes(context: Context) -> list[tuple[str, str]]:
    return [(flag.text, _kind(flag.value)) for flag in context.flags if flag.value is not None]


def _kind(value: ValueHint) -> str:
    return "=" + " ".join(value.words) if value.words else value.kind


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"[{_quoted(key)}]={_quoted(text)}" for key, text in pairs)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_list(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(_fish_quoted(f"{key}\t{text}" if text else key) for key, text in pairs)


assert (ROOT, REST) == ("-", "--"), "the loops in the scripts begin and end there"
