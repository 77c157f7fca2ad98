/** Answers that are free text in which parts may begin that a grammar holds (calls of tools). The text is made of zones, each
 * ended by marks; a mark may begin a held part, and only there a grammar is followed: what may be said in free text is
 * everything, but for tokens that run over a mark into what its part does not allow (free-text.ts). XGrammar would look at
 * the whole vocabulary for every state of such text: compiling one took it seconds.
 *
 * The grammar of such an answer has a line `# zones …`, and its first rule chooses the held part by a mark that no text
 * spells. */

export interface Zone {
  /** Between marks nothing that is said changes what may be said. */
  calm: boolean
  /** Text that ends it, and the zone after it, or the held part (`held`). */
  until: readonly (readonly [mark: string, to: number])[]
  lead?: Lead
}

/** Of a zone that is only looked at: how the text begins says what it is. */
export interface Lead {
  /** A text that begins with one of these characters is of another zone. */
  first?: readonly [characters: string, to: number]
  /** Bare calls: the text before the name (a space: any white space), and the held part that begins with the name. */
  calls: readonly (readonly [head: string, to: number])[]
  /** As JSON. */
  names: readonly string[]
  /** Everything else. */
  to: number
}

export interface Zones {
  /** In which it begins. */
  from: number
  zones: readonly Zone[]
  /** For each held part the zone after it; null: nothing follows it. */
  parts: readonly (number | null)[]
}

/** As a zone: a held part, by its place among them. */
export function held(part: number): number {
  return -1 - part
}

export function partOf(zone: number): number {
  return -1 - zone
}

const HEADER = "# zones "

export function zonesHeader(zones: Zones): string {
  return `${HEADER}${JSON.stringify(zones)}\n`
}

/** Of a grammar's first lines, marks and names as bytes of UTF-8, a character each; null: all of it is held. */
export function zonesOf(grammar: string): Zones | null {
  for (let at = 0; grammar[at] === "#"; at = grammar.indexOf("\n", at) + 1) {
    if (!grammar.startsWith(HEADER, at)) continue
    const line = grammar.slice(at + HEADER.length, grammar.indexOf("\n", at))
    return JSON.parse(Buffer.from(line, "utf8").toString("latin1")) as Zones
  }
  return null
}

/** How far a text has come, its bytes a character each. */
export interface Place {
  zone: number
  /** What may be the beginning of a mark; of a zone that is only looked at, all of it; of a held part what it begins with. */
  tail: string
}

export function startOf({ from }: Zones): Place {
  return { zone: from, tail: "" }
}

export function isCalm({ zones }: Zones, { zone, tail }: Place): boolean {
  return zone >= 0 && zones[zone]!.calm && tail === ""
}

/** Where the text is after more of it. In a held part it stays. */
export function moved({ zones }: Zones, place: Place, bytes: string): Place {
  let { zone, tail } = place
  if (zone < 0) return place
  tail += bytes
  for (;;) {
    const { until, lead } = zones[zone]!
    const step = lead === undefined ? following(tail, until) : leading(tail, until, lead)
    if (typeof step === "string") return { zone, tail: step }
    zone = step.to
    tail = tail.slice(step.from)
    if (zone < 0) return { zone, tail }
  }
}

/** In which zone it goes on, and from which character; or what is left to wait with. */
type Step = { to: number; from: number } | string

function following(text: string, until: Zone["until"]): Step {
  let best: { at: number; mark: string; to: number } | null = null
  let waiting = 0
  for (const [mark, to] of until) {
    const at = text.indexOf(mark)
    if (at >= 0 && (best === null || at < best.at)) best = { at, mark, to }
    if (at < 0) waiting = Math.max(waiting, beginning(text, mark))
  }
  if (best !== null) return { to: best.to, from: best.at + best.mark.length }
  return text.slice(text.length - waiting)
}

/** Length of the longest end of a text that a mark begins with. */
function beginning(text: string, mark: string): number {
  for (let n = Math.min(mark.length - 1, text.length); n > 0; n--)
    if (mark.startsWith(text.slice(text.length - n))) return n
  return 0
}

const SPACE = " \t\n\r"

function leading(text: string, until: Zone["until"], lead: Lead): Step {
  if (text === "") return text
  if (lead.first?.[0].includes(text[0]!)) return { to: lead.first[1], from: 0 }
  const from = afterSpace(text, 0)
  const rest = text.slice(from)
  const whole = until.find(([mark]) => rest.startsWith(mark))
  if (whole !== undefined) return { to: whole[1], from: from + whole[0].length }
  let waits = rest === "" || until.some(([mark]) => mark.startsWith(rest))
  for (const [head, to] of lead.calls) {
    const at = afterHead(text, head)
    if (at === "waits") waits = true
    else if (at !== null) {
      const name = text.slice(at)
      if (lead.names.some((one) => name.startsWith(one))) return { to, from: at }
      waits ||= lead.names.some((one) => one.startsWith(name))
    }
  }
  return waits ? text : { to: lead.to, from: 0 }
}

function afterSpace(text: string, from: number): number {
  let at = from
  while (at < text.length && SPACE.includes(text[at]!)) at++
  return at
}

/** Where a text goes on after a head; null: it begins otherwise. */
function afterHead(text: string, head: string): number | "waits" | null {
  let at = 0
  for (const c of head) {
    if (c === " ") at = afterSpace(text, at)
    else if (at === text.length) return "waits"
    else if (text[at++] !== c) return null
  }
  return at
}
