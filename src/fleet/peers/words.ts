/** What is told here as gateways on other machines are told it, and the other way: only what means the same there, in pieces that
 * hold up neither end, checked, and its times on the clock of the machine that it comes to. */
import { z } from "zod"
import type { Told } from "../../siblings/messages.ts"
import { isLoopback } from "../backends/addresses.ts"
import {
  LOAD_TOPIC,
  type LoadWord,
  type WholeWord,
  wholeMovedBy,
  wordMovedBy,
} from "../backends/shared-load.ts"
import type { PastPlacement, Placement } from "../latest-placements.ts"
import { PLACEMENTS } from "../told-placements.ts"

/** Of a message, about: words, and sixteen keys of prefixes each. */
const MOST_WEIGHT = 512
const KEYS_A_WEIGHT = 16
/** Of all that a process has: what is more is left out, and not taken. */
const MOST_REQUESTS = 8192
export const MOST_WHOLE_WEIGHT = 2 ** 15

/** An engine at a loopback address is another one on each machine. */
function isEverywhere(engine: string): boolean {
  const name = engine.replace(/:\d+$/, "").replace(/^\[|\]$/g, "")
  return name !== "localhost" && !isLoopback(name)
}

/** All that a process has, likewise: one piece at least. */
export function outgoingWhole(told: readonly Told[], sameMachine: boolean): Told[][] {
  let left = MOST_REQUESTS
  const within = told.map(({ topic, word }): Told => {
    if (topic === PLACEMENTS) return { topic, word }
    const words = (word as readonly unknown[]).slice(0, left)
    left -= words.length
    return { topic, word: words }
  })
  const pieces = outgoing(within, sameMachine)
  return pieces.length > 0 ? pieces : [[]]
}

/** In pieces of a message each. `sameMachine`: the other gateway is on it. */
export function outgoing(told: readonly Told[], sameMachine: boolean): Told[][] {
  const pieces: Told[][] = [[]]
  let left = MOST_WEIGHT
  for (const { topic, word } of told) {
    if (topic !== PLACEMENTS && !topic.startsWith(LOAD_TOPIC)) continue
    if (!sameMachine && topic !== PLACEMENTS && !isEverywhere(topic.slice(LOAD_TOPIC.length))) continue
    let part: unknown[] = []
    const end = () => {
      if (part.length > 0) pieces.at(-1)!.push({ topic, word: part })
      part = []
    }
    for (const one of word as readonly unknown[]) {
      if (topic === PLACEMENTS && !sameMachine && !isEverywhere((one as Placement)[1])) continue
      const weight = weightOf(topic, one)
      if (left < weight && left < MOST_WEIGHT) {
        end()
        pieces.push([])
        left = MOST_WEIGHT
      }
      left -= weight
      part.push(one)
    }
    end()
  }
  return pieces.filter((piece) => piece.length > 0)
}

function weightOf(topic: string, one: unknown): number {
  return topic === PLACEMENTS ? 1 + (one as Placement)[0].prefix.length / KEYS_A_WEIGHT : 1
}

/** Words in it. */
export function countOf(told: readonly Told[]): number {
  return told.reduce((sum, { word }) => sum + (word as unknown[]).length, 0)
}

export function weightOfAll(told: readonly Told[]): number {
  return told
    .flatMap(({ topic, word }) => (word as unknown[]).map((one) => weightOf(topic, one)))
    .reduce((sum, weight) => sum + weight, 0)
}

/** Pieces of what a process has, as one. */
export function joined(pieces: readonly Told[]): Told[] {
  const words = Map.groupBy(pieces, ({ topic }) => topic)
  return [...words].map(([topic, parts]) => ({ topic, word: parts.flatMap(({ word }) => word as unknown[]) }))
}

/** As `incoming`, of a piece of all that a process has. */
export function incomingWhole(words: readonly Told[], aheadUs: number, apps: number): Told[] {
  return words.flatMap(({ topic, word }): Told[] => {
    if (topic === PLACEMENTS) {
      const past = checked(pastPlacements, topic, word)
      return [{ topic, word: past.map(([request, name, atUs]) => [request, name, atUs + aheadUs]) }]
    }
    if (!topic.startsWith(LOAD_TOPIC)) return []
    const known = checked(wholeWords, topic, word).map((one) => inClasses(one, apps))
    return [{ topic, word: known.map((one) => wholeMovedBy(one, aheadUs)) }]
  })
}

/** Throws for what makes no sense. Topics that are not known are left out. `aheadUs`: the clock here is so much ahead of the one there.
 * `apps`: classes that there are here. */
export function incoming(words: readonly Told[], aheadUs: number, apps: number): Told[] {
  return words.flatMap(({ topic, word }): Told[] => {
    if (topic === PLACEMENTS) return [{ topic, word: checked(placements, topic, word) }]
    if (!topic.startsWith(LOAD_TOPIC)) return []
    const known = checked(loadWords, topic, word).filter((one) => one.type !== "saw" || one.seen.app < apps)
    return [{ topic, word: known.map((one) => wordMovedBy(inClasses(one, apps), aheadUs)) }]
  })
}

function checked<T>(schema: z.ZodType<T>, topic: string, word: unknown): T {
  const parsed = schema.safeParse(word)
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0]!
  throw new Error(
    `what it says of ${topic.slice(0, 80)} makes no sense (${path.join(".")}: ${message.slice(0, 100)})`,
  )
}

/** A class that is not known here has a load all the same. */
function inClasses<Word extends LoadWord | WholeWord>(word: Word, apps: number): Word {
  if (!("spec" in word) || word.spec.app < apps) return word
  return { ...word, spec: { ...word.spec, app: 0 } }
}

const whole = z.number().int()
const count = whole.nonnegative()
/** Infinity where there is no objective. */
const us = z.custom<number>((value) => typeof value === "number" && !Number.isNaN(value), "is no time")
const finiteUs = z.number()
/** As a process counts its own: `SharedLoad` has room for so many of each. */
const id = whole.positive().max(2 ** 32 - 1)
const tokens = count.max(1e9)
/** One by one a schema would take longer than all the rest. */
const keys = z.custom<readonly number[]>(
  (value) => Array.isArray(value) && value.every((one) => Number.isFinite(one)),
  "is no list of keys",
)

const spec = z.object({
  ...{ id, app: count, session: whole, arrivalUs: finiteUs, promptTokens: tokens, cachedTokens: tokens },
  ...{
    maxOutputTokens: tokens.positive(),
    prefix: keys,
    tier: z.enum(["slo", "bestEffort"]),
    thinking: z.boolean(),
  },
  slo: z.object({ ttftUs: us, ttftSlowdown: us, tpotUs: us, thinkingTpotUs: us, maxGapUs: us }),
})

const held = z.object({ type: z.literal("held"), id, spec, deadlineUs: us })

const loadWords: z.ZodType<LoadWord[]> = z.array(
  z.discriminatedUnion("type", [
    held,
    z.object({ type: z.literal("sent"), id, spec, forced: z.boolean() }),
    z.object({ type: z.enum(["cached", "tokens"]), id, tokens }),
    z.object({ type: z.literal("ended"), id, stopped: z.boolean() }),
    z.object({
      type: z.literal("saw"),
      seen: z.object({
        ...{ app: count, session: z.string().max(10_000).nullable() },
        seen: z.object({ prompt: tokens, cached: tokens, output: tokens }),
      }),
    }),
  ]),
)

const wholeWords: z.ZodType<WholeWord[]> = z.array(
  z.discriminatedUnion("type", [
    held,
    z.object({
      ...{ type: z.literal("underWay"), id, spec, forced: z.boolean(), sentUs: finiteUs },
      ...{ computed: tokens, tokens, firstUs: finiteUs.nullable(), late: z.boolean() },
    }),
  ]),
)

const routed = z.object({ session: whole, promptTokens: tokens, prefix: keys })
const name = z.string().max(300)
const placements: z.ZodType<Placement[]> = z.array(z.tuple([routed, name]))
const pastPlacements: z.ZodType<PastPlacement[]> = z.array(z.tuple([routed, name, finiteUs]))
