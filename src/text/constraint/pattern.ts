/** Regular expressions, as JSON schemas write them (ECMAScript's, in Unicode mode), to a graph of characters that follow
 * each other: one node for each character that is written (Glushkov's construction), so that each is one rule. */
import { ANY, canBeTold, complement, type Ranges, rangesOf } from "./code-points.ts"

export interface PatternGraph {
  /** Of each node. */
  characters: readonly Ranges[]
  /** Nodes that may come first, and after each; sorted. */
  first: readonly number[]
  follow: readonly (readonly number[])[]
  /** Nodes after which the text may end. */
  last: ReadonlySet<number>
  /** An empty text matches. */
  empty: boolean
}

/** Nodes of one pattern. */
const MOST_NODES = 1000

/** What a pattern has that cannot be kept. The message says what, for people. */
export class UnsupportedPattern extends Error {}

type Node =
  | { kind: "characters"; ranges: Ranges }
  | { kind: "all" | "any"; of: readonly Node[] }
  | { kind: "repeat"; of: Node; min: number; max: number }
  | { kind: "start" | "end" }

/** Throws UnsupportedPattern. */
export function patternGraph(pattern: string): PatternGraph {
  const graph = new GraphBuilder()
  return graph.of(anchored(new Parser(pattern).whole()))
}

/** A pattern may match anywhere: where it is not anchored, anything may stand. */
function anchored(node: Node): Node {
  if (node.kind === "any") return { kind: "any", of: node.of.map(anchored) }
  const parts = node.kind === "all" ? [...node.of] : [node]
  const begins = parts[0]?.kind === "start"
  const ends = parts.at(-1)?.kind === "end"
  const inner = parts.slice(begins ? 1 : 0, ends ? -1 : undefined)
  const [only] = inner
  // Anchors around a group, or inside all of its choices.
  if (inner.length === 1 && only!.kind === "any" && !begins && !ends) return anchored(only!)
  const anything: Node = { kind: "repeat", of: { kind: "characters", ranges: ANY }, min: 0, max: Infinity }
  return { kind: "all", of: [...(begins ? [] : [anything]), ...inner, ...(ends ? [] : [anything])] }
}

class GraphBuilder {
  readonly #characters: Ranges[] = []
  readonly #follow: Set<number>[] = []

  of(node: Node): PatternGraph {
    const { first, last, empty } = this.#build(node)
    return {
      characters: this.#characters,
      first: sorted(first),
      follow: this.#follow.map(sorted),
      last: new Set(last),
      empty,
    }
  }

  #build(node: Node): Ends {
    if (node.kind === "characters") return this.#node(node.ranges)
    if (node.kind === "any") return node.of.map((one) => this.#build(one)).reduce(either, NOTHING)
    if (node.kind === "all") return node.of.reduce((ends, one) => this.#then(ends, this.#build(one)), EMPTY)
    if (node.kind === "repeat") return this.#repeated(node)
    throw new UnsupportedPattern("an anchor in the midst of it")
  }

  #node(ranges: Ranges): Ends {
    if (this.#characters.length >= MOST_NODES)
      throw new UnsupportedPattern(`more than ${MOST_NODES} characters, repetitions counted`)
    if (!canBeTold(ranges))
      throw new UnsupportedPattern("a set of many characters beyond ASCII that is not all of them")
    const node = this.#characters.push(ranges) - 1
    this.#follow.push(new Set())
    return { first: [node], last: [node], empty: false }
  }

  #repeated({ of, min, max }: Extract<Node, { kind: "repeat" }>): Ends {
    let ends = EMPTY
    for (let i = 0; i < min; i++) ends = this.#then(ends, this.#build(of))
    if (max === Infinity) {
      const loop = this.#build(of)
      this.#join(loop.last, loop.first)
      return this.#then(ends, { ...loop, empty: true })
    }
    // From the end: what follows an optional one is optional with it.
    let rest = EMPTY
    for (let i = min; i < max; i++) rest = { ...this.#then(this.#build(of), rest), empty: true }
    return this.#then(ends, rest)
  }

  #then(before: Ends, after: Ends): Ends {
    this.#join(before.last, after.first)
    return {
      first: before.empty ? [...before.first, ...after.first] : before.first,
      last: after.empty ? [...before.last, ...after.last] : after.last,
      empty: before.empty && after.empty,
    }
  }

  #join(from: readonly number[], to: readonly number[]): void {
    for (const node of from) for (const next of to) this.#follow[node]!.add(next)
  }
}

interface Ends {
  first: readonly number[]
  last: readonly number[]
  empty: boolean
}

const EMPTY: Ends = { first: [], last: [], empty: true }
const NOTHING: Ends = { first: [], last: [], empty: false }

function either(a: Ends, b: Ends): Ends {
  return { first: [...a.first, ...b.first], last: [...a.last, ...b.last], empty: a.empty || b.empty }
}

function sorted(nodes: Iterable<number>): number[] {
  return [...new Set(nodes)].sort((a, b) => a - b)
}

const DIGITS: Ranges = [[0x30, 0x39]]
const WORD: Ranges = rangesOf([...DIGITS, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]])
const SPACE: Ranges = rangesOf([
  ...([
    [9, 13],
    [0x20, 0x20],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
    [0x2028, 0x2029],
  ] as const),
  ...([
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ] as const),
])
const CLASSES: Readonly<Record<string, Ranges>> = {
  ...{ d: DIGITS, w: WORD, s: SPACE },
  ...{ D: complement(DIGITS), W: complement(WORD), S: complement(SPACE) },
}
const LINE_ENDS: Ranges = [
  [10, 10],
  [13, 13],
  [0x2028, 0x2029],
]
const CONTROLS: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 }

class Parser {
  readonly #characters: readonly string[]
  #at = 0

  constructor(pattern: string) {
    this.#characters = [...pattern]
  }

  whole(): Node {
    const node = this.#choices()
    if (this.#here !== undefined) throw new UnsupportedPattern("a parenthesis that was not opened")
    return node
  }

  get #here(): string | undefined {
    return this.#characters[this.#at]
  }

  #takes(text: string): boolean {
    if (
      !this.#characters
        .slice(this.#at, this.#at + text.length)
        .join("")
        .startsWith(text)
    )
      return false
    this.#at += [...text].length
    return true
  }

  #choices(): Node {
    const choices = [this.#sequence()]
    while (this.#takes("|")) choices.push(this.#sequence())
    return choices.length === 1 ? choices[0]! : { kind: "any", of: choices }
  }

  #sequence(): Node {
    const parts: Node[] = []
    while (this.#here !== undefined && this.#here !== "|" && this.#here !== ")") parts.push(this.#repeated())
    return { kind: "all", of: parts }
  }

  #repeated(): Node {
    const node = this.#atom()
    const times = this.#times()
    if (times === null) return node
    // How eagerly it matches changes nothing of what matches.
    this.#takes("?")
    return { kind: "repeat", of: node, ...times }
  }

  #times(): { min: number; max: number } | null {
    if (this.#takes("*")) return { min: 0, max: Infinity }
    if (this.#takes("+")) return { min: 1, max: Infinity }
    if (this.#takes("?")) return { min: 0, max: 1 }
    const counted = /^\{(\d+)(?:(,)(\d*))?\}/.exec(this.#characters.slice(this.#at, this.#at + 24).join(""))
    if (counted === null) return null
    this.#at += counted[0].length
    const min = Number(counted[1])
    const max = counted[2] === undefined ? min : counted[3] === "" ? Infinity : Number(counted[3])
    if (min > MOST_NODES || (max !== Infinity && max > MOST_NODES) || max < min)
      throw new UnsupportedPattern(`the repetition ${counted[0]}`)
    return { min, max }
  }

  #atom(): Node {
    const c = this.#characters[this.#at++]!
    if (c === "^") return { kind: "start" }
    if (c === "$") return { kind: "end" }
    if (c === ".") return { kind: "characters", ranges: complement(LINE_ENDS) }
    if (c === "(") return this.#group()
    if (c === "[") return { kind: "characters", ranges: this.#class() }
    if (c === "\\") return { kind: "characters", ranges: this.#escape(false) }
    if ("*+?".includes(c)) throw new UnsupportedPattern(`${c} without anything before it`)
    return single(c.codePointAt(0)!)
  }

  #group(): Node {
    if (this.#takes("?")) {
      const named = /^<[^=!>][^>]*>/.exec(this.#characters.slice(this.#at, this.#at + 100).join(""))
      if (named !== null) this.#at += [...named[0]].length
      else if (!this.#takes(":")) throw new UnsupportedPattern("a lookahead or lookbehind")
    }
    const node = this.#choices()
    if (!this.#takes(")")) throw new UnsupportedPattern("a parenthesis that is not closed")
    return node
  }

  #class(): Ranges {
    const not = this.#takes("^")
    const ranges: (readonly [number, number])[] = []
    while (!this.#takes("]")) {
      if (this.#here === undefined) throw new UnsupportedPattern("a bracket that is not closed")
      const from = this.#member()
      const isRange =
        this.#here === "-" &&
        this.#characters[this.#at + 1] !== "]" &&
        from.length === 1 &&
        from[0]![0] === from[0]![1]
      if (!isRange) {
        ranges.push(...from)
        continue
      }
      this.#at++
      const to = this.#member()
      if (to.length !== 1 || to[0]![0] !== to[0]![1] || to[0]![0] < from[0]![0])
        throw new UnsupportedPattern("a range in brackets that is none")
      ranges.push([from[0]![0], to[0]![0]])
    }
    return not ? complement(ranges) : rangesOf(ranges)
  }

  #member(): Ranges {
    const c = this.#characters[this.#at++]!
    if (c === undefined) throw new UnsupportedPattern("a bracket that is not closed")
    if (c === "\\") return this.#escape(true)
    const code = c.codePointAt(0)!
    return [[code, code]]
  }

  #escape(inClass: boolean): Ranges {
    const c = this.#characters[this.#at++]
    if (c === undefined) throw new UnsupportedPattern("a backslash at its end")
    const known = CLASSES[c]
    if (known !== undefined) return known
    const code = this.#code(c, inClass)
    return [[code, code]]
  }

  #code(c: string, inClass: boolean): number {
    const control = Object.hasOwn(CONTROLS, c) ? CONTROLS[c] : undefined
    if (control !== undefined) return control
    if (c === "b" && inClass) return 8
    const rest = this.#characters.slice(this.#at, this.#at + 9).join("")
    const hex =
      c === "x"
        ? /^([0-9a-fA-F]{2})/.exec(rest)
        : c === "u"
          ? /^(?:\{([0-9a-fA-F]+)\}|([0-9a-fA-F]{4}))/.exec(rest)
          : null
    if (hex !== null) {
      this.#at += hex[0].length
      return Number.parseInt(hex[1] ?? hex[2]!, 16)
    }
    if (/[A-Za-z0-9]/.test(c)) throw new UnsupportedPattern(`\\${c}`)
    return c.codePointAt(0)!
  }
}

function single(code: number): Node {
  return { kind: "characters", ranges: [[code, code]] }
}
