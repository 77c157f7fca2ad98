/** Grammars in use: compiled once, bounded in time and number, followed through changes of host, and never by a step
 * that waits for ever. */
import { afterEach, expect, test } from "vitest"
import { UserError } from "../../errors.ts"
import { fakeTokenizer } from "../fake/tokenizer.ts"
import { GREEDY, type Tokenizer } from "../port.ts"
import { type OpenRequest, RequestTable } from "../request-table.ts"
import { type ConstraintLimits, Constraints } from "./constraints.ts"
import { partMark } from "./counted.ts"
import { allows } from "./mask.ts"
import { FREE_TEXT, judge } from "./testing.ts"
import { held, zonesHeader } from "./zones.ts"

/** Words of five letters: a vocabulary in which a grammar of poor shape takes long. */
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"]
const WORDS = ["or", "er"].flatMap((end) =>
  LETTERS.flatMap((a) => LETTERS.flatMap((b) => LETTERS.map((c) => a + b + c + end))),
)
const wordy: Tokenizer = {
  ...fakeTokenizer,
  bytes: (token) => (token < 261 ? fakeTokenizer.bytes(token) : new TextEncoder().encode(WORDS[token - 261])),
}
const WORDY_SIZE = 261 + WORDS.length
/** Counts characters, one rule each: every word has to be tried at every step. */
const SLOW_TO_FOLLOW = `root ::= "[" text ("," text)* "]"
text ::= "-" character{0,1000} "-"
character ::= [a-z] | "+" escape
escape ::= [a-z] | "u" escape escape`
/** Counts them in one rule: every word has to be tried for every count. */
const SLOW_TO_COMPILE = `root ::= [a-z]{0,1280} "!" | [b-z]{0,1270} "?" | [c-z]{0,1260} "."`
/** Long enough for a thread that waits for its turn on a busy machine, and far less than these grammars take on an idle one. */
const LIMIT_MS = 2_000
const OVER_THE_LIMIT = /longer than 2000 ms/
/** Text by which the slow one is asked what may come a thousand times. */
const MUCH = "abcde".repeat(200)

let open: Constraints | null = null
afterEach(() => open?.close())

function constraints(
  limits: Partial<ConstraintLimits> = {},
  tokenizer = fakeTokenizer as Tokenizer,
  size = 261,
) {
  open = new Constraints(tokenizer, size, limits)
  const limit = { kvTokens: 9999, maxSequences: 99, maxBatchTokens: 99, contextTokens: 9999 }
  const table = new RequestTable({ ...limit, blockTokens: 16, minChunkTokens: 1, unifiedKv: false }, false)
  let id = 0
  /** `said`: on another engine. */
  const start = (grammar: string, said = ""): OpenRequest => {
    const output = Int32Array.from(new TextEncoder().encode(said))
    const request = table.open(++id, Int32Array.of(1, 2), { ...GREEDY, grammar }, output)
    open!.open(request, grammar)
    return request
  }
  const append = (request: OpenRequest, text: string) => {
    for (const byte of Buffer.from(text, "latin1")) table.append(request, byte, false)
  }
  /** A request says a text, byte by byte, each of them let through. */
  const say = async (request: OpenRequest, text: string) => {
    for (const byte of new TextEncoder().encode(text)) {
      const masks = await open!.masks([{ request, draft: [] }])
      expect(allows(masks.get(request.id)![0]!, byte), text).toBe(true)
      table.append(request, byte, false)
    }
  }
  return { constraints: open, start, say, append }
}
const letter = (text: string) => text.charCodeAt(0)
const only = (text: string) => `root ::= "${text}"`

test("grammars that come one after the other are all followed to their ends", async () => {
  const { constraints: all, start, say } = constraints()
  const texts = ["abcdefgh", "bcdefghi", "cdefghij", "defghijk", "efghijkl"]
  const requests: OpenRequest[] = []
  for (const [i, text] of texts.entries()) {
    await all.hold(only(text))
    requests.push(start(only(text)))
    // Every new grammar changes the host under those that are on their way.
    for (const [j, request] of requests.entries()) await say(request, texts[j]![i - j]!)
  }
  for (const [j, request] of requests.entries()) {
    const rest = texts[j]!.slice(request.known - 2)
    await say(request, rest)
    const mask = (await all.masks([{ request, draft: [] }])).get(request.id)![0]!
    expect(allows(mask, letter("a"))).toBe(false)
    expect(allows(mask, 258)).toBe(true)
  }
})

test("drafts are looked at as far as the grammar lets them come", async () => {
  const { constraints: all, start } = constraints()
  await all.hold(only("abc"))
  const request = start(only("abc"))
  const draft = [..."abxc"].map(letter)
  const masks = (await all.masks([{ request, draft }])).get(request.id)!
  expect(masks).toHaveLength(3)
  expect(masks.map((mask, i) => allows(mask, letter("abc"[i]!)))).toEqual([true, true, true])
  expect(masks.some((mask, i) => allows(mask, letter("bcd"[i]!)))).toBe(false)
})

test("an answer that goes on here is followed piece by piece while its prompt is computed", async () => {
  const { constraints: all, start, say } = constraints()
  await all.hold(only("abcdefgh"))
  const request = start(only("abcdefgh"), "abcde")
  for (let i = 0; i < 4; i++) expect((await all.masks([{ request, draft: null, most: 2 }])).size).toBe(0)
  await say(request, "fgh")
  // One that is asked too early is followed over the rest at once.
  const other = start(only("abcdefgh"), "abcdef")
  await all.masks([{ request: other, draft: null, most: 1 }])
  await say(other, "gh")
})

test("one that has left its grammar elsewhere has no way back into it", async () => {
  const { constraints: all, start, say } = constraints()
  const grammar = "root ::= [a-z]+"
  await all.hold(grammar)
  const [good, bad] = [start(grammar, "ab"), start(grammar, "ab1cd")]
  const pieces = [good, bad].map((request) => ({ request, draft: null, most: 2 }))
  for (let i = 0; i < 3; i++) await all.masks(pieces)
  await expect(all.masks([{ request: bad, draft: [] }])).rejects.toThrow(/has left its grammar/)
  await say(good, "cd")
})

test("free text is asked about once, and what may come is what it is where every token is told", async () => {
  const { constraints: all, start, append } = constraints()
  const lead = { calls: [[' { "n" :', held(1)] as const], names: ['"a"', '"ab"'], to: 2 }
  const thinking = `${zonesHeader({
    from: 0,
    zones: [
      { calm: false, until: [["<t>", 1]], lead },
      { calm: true, until: [["</t>", 2]] },
      { calm: true, until: [["é{", held(0)]] },
    ],
    parts: [2, null],
  })}root ::= "${partMark(0)}" [0-9] "}" | "${partMark(1)}" ("\\"a\\"" | "\\"ab\\"") "!"`
  const cases: [string, string[]][] = [
    [FREE_TEXT, ["plain", "é🙂 x{12}y{3", "{12}{34}"]],
    [
      thinking,
      ["a<t>b", " <t>x < é{ </t </t>y é{3}z", "é{1}", ' { "n" :"a"!', '{"n":"b"', "<tx é é{", '{"n":"ab"'],
    ],
  ]
  const plain = await judge()
  for (const [grammar, texts] of cases) {
    await all.hold(grammar)
    for (const text of texts) {
      const request = start(grammar)
      const told = await plain.start(grammar)
      for (const byte of new TextEncoder().encode(text)) {
        const mask = (await all.masks([{ request, draft: [] }])).get(request.id)![0]!
        expect([...mask.subarray(0, 8)], text).toEqual([...(await told.mask()).subarray(0, 8)])
        expect(await told.take(byte)).toBe(true)
        append(request, String.fromCharCode(byte))
      }
      told.dispose()
    }
  }
  const request = start(FREE_TEXT)
  const draft = [..."some text"].map(letter)
  const [mask, ...others] = (await all.masks([{ request, draft }])).get(request.id)!
  expect(others).toHaveLength(draft.length)
  for (const other of others) expect(other).toBe(mask)
  append(request, "a text")
  expect((await all.masks([{ request, draft: [] }])).get(request.id)![0]).toBe(mask)
  append(request, "{")
  const digits = (await all.masks([{ request, draft: [] }])).get(request.id)![0]!
  expect([allows(digits, letter("1")), allows(digits, letter("a")), allows(digits, 258)]).toEqual([
    true,
    false,
    false,
  ])
})

test("drafts go through held parts and out of them", async () => {
  const { constraints: all, start } = constraints()
  await all.hold(FREE_TEXT)
  const lengthOf = async (text: string) => {
    const request = start(FREE_TEXT)
    return (await all.masks([{ request, draft: [...text].map(letter) }])).get(request.id)!.length
  }
  expect(await lengthOf("ab{12}cd{34}e")).toBe(14)
  expect(await lengthOf("ab{12}cd{3}e")).toBe(11)
  expect(await lengthOf("{x")).toBe(2)
})

test("a grammar that takes too long to compile is refused, says so, and holds up no other", async () => {
  const { constraints: all } = constraints({ compileMs: LIMIT_MS }, wordy, WORDY_SIZE)
  let failure = await all.hold(SLOW_TO_COMPILE).catch((error: unknown) => error)
  expect(failure).toBeInstanceOf(UserError)
  expect(failure).toMatchObject({ status: 400, code: "invalid_json_schema" })
  expect((failure as Error).message).toMatch(OVER_THE_LIMIT)
  // Asked again, it is refused without a host.
  const again = all.hold(SLOW_TO_COMPILE).catch((error: unknown) => error)
  failure = await Promise.race([again, new Promise((resolve) => setImmediate(() => resolve("late")))])
  expect(failure).toBeInstanceOf(UserError)
})

test("a request whose grammar takes too long to follow fails alone; the others go on", async () => {
  const { constraints: all, start, say } = constraints({ followMs: LIMIT_MS }, wordy, WORDY_SIZE)
  await all.hold(only("abcdef"))
  await all.hold(SLOW_TO_FOLLOW)
  const good = start(only("abcdef"))
  await say(good, "ab")
  const slow = start(SLOW_TO_FOLLOW)
  await say(slow, "[-")
  const both = [
    { request: good, draft: [] },
    { request: slow, draft: [...MUCH].map(letter) },
  ]
  await expect(all.masks(both)).rejects.toThrow(OVER_THE_LIMIT)
  // Known by now: it takes no time again.
  await expect(all.masks([both[1]!])).rejects.toThrow(OVER_THE_LIMIT)
  await say(good, "cdef")
  all.forget(slow.id)
  await expect(all.masks([both[1]!])).resolves.toEqual(new Map())
})

test("different grammars in use, and those that wait, are bounded; let go, they make room", async () => {
  const { constraints: all } = constraints({ held: 2, queued: 1 })
  const first = await all.hold(only("a"))
  const again = await all.hold(only("a"))
  const waits = all.hold(only("b"))
  await expect(all.hold(only("c"))).rejects.toMatchObject({ status: 429, code: "too_many_schemas" })
  const second = await waits
  await expect(all.hold(only("c"))).rejects.toMatchObject({ status: 429, code: "too_many_schemas" })
  first()
  first()
  await expect(all.hold(only("c"))).rejects.toMatchObject({ status: 429 })
  again()
  await (await all.hold(only("c")))()
  second()
  const { constraints: narrow } = constraints({ queued: 1 })
  const [one, two] = [narrow.hold(only("a")), narrow.hold(only("b"))]
  await expect(two).rejects.toMatchObject({ status: 429, code: "too_many_schemas" })
  await one
})

test("a grammar that was let go and left is compiled anew", async () => {
  const { constraints: all, start, say } = constraints({ kept: 3 })
  for (const text of ["ab", "bc", "cd", "de", "ef", "ab", "ef"]) {
    const release = await all.hold(only(text))
    await say(start(only(text)), text)
    release()
  }
})

test("requests that come while a host catches up are no other's fault, and are followed themselves", async () => {
  const { constraints: all, start, say } = constraints()
  await all.hold(only("a"))
  for (let i = 0; i < 50; i++) start(only("a"))
  for (let turns = 0; turns < 60; turns += 3) {
    const late = only(`late ${turns}`)
    // Known to the host that serves, and not to the one that compiles next.
    const known = await all.hold(late)
    known()
    const compiling = all.hold(only(`another ${turns}`))
    for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
    const release = await all.hold(late)
    const request = start(late)
    ;(await compiling)()
    await say(request, `late ${turns}`)
    all.forget(request.id)
    release()
  }
})

test("one that cannot be followed ends a host, but not what another waits for", async () => {
  const { constraints: all, start, say, append } = constraints({ followMs: LIMIT_MS }, wordy, WORDY_SIZE)
  await all.hold(SLOW_TO_FOLLOW)
  const good = only("abcdef")
  await all.hold(good)
  const follows = start(good)
  await say(follows, "ab")
  const slow = start(SLOW_TO_FOLLOW)
  // As it is after steps that another host was told of.
  append(
    slow,
    `[${Array(20)
      .fill(`-${MUCH.slice(0, 900)}-`)
      .join()}`,
  )
  const release = await all.hold(only("other"))
  release()
  await say(follows, "cdef")
  await expect(all.masks([{ request: slow, draft: [] }])).rejects.toThrow(OVER_THE_LIMIT)
})
