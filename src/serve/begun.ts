/** An answer that has begun on another replica, on its way into this one: its text is rebuilt, its steps are told as the
 * core counts them. */
import type { SeenStart, SeenStep } from "../core/seen.ts"
import { type UserError, userError } from "../errors.ts"
import type { Begun } from "../replica/host.ts"
import type { Requested } from "../replica/submission.ts"
import type { Answer } from "../text/answer.ts"
import type { PrefixHasher } from "./prefix.ts"

/** What a client has of an answer, with times after its request's arrival. */
export interface BegunAnswer {
  steps: readonly { tokens: readonly number[]; sinceUs: number }[]
  start?: SeenStart
}

/** `ageUs`: how long ago the request arrived. null where no token of it is out: it begins afresh. */
export function sinceArrival({ steps, start }: Begun, ageUs: number): BegunAnswer | null {
  const some = steps.filter(({ tokens }) => tokens.length > 0)
  if (some.length === 0) return null
  return {
    steps: some.map(({ tokens, agoUs }) => ({ tokens, sinceUs: ageUs - agoUs })),
    ...(start !== undefined && { start }),
  }
}

/** A request that goes on where another replica left it; brings its text and the hashes of its KV blocks there. Throws
 * UserError for tokens that cannot have come from this model. */
export function goOn(
  { steps, start }: BegunAnswer,
  requested: Requested,
  { answer, hasher, vocabSize }: { answer: Answer; hasher: PrefixHasher; vocabSize: number },
): Requested {
  const { prefix, arrivalUs = 0, maxOutputTokens } = requested
  const output = steps.flatMap(({ tokens }) => tokens)
  const unknown = output.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocabSize))
  if (unknown !== undefined) throw wrong(`token ${unknown} is not in the vocabulary of this model`)
  const times = [...steps.map(({ sinceUs }) => sinceUs), ...(start ? [start.ttftUs, start.queuedUs] : [])]
  if (!times.every(Number.isFinite)) throw wrong("when its tokens came is not said in numbers")
  let stopped = false
  const seen = steps.map(({ tokens, sinceUs }): SeenStep => {
    if (stopped) throw wrong("its tokens go on after its end")
    const read = answer.replay(tokens)
    if (read.tokens < tokens.length) throw wrong("its tokens go on after its end")
    stopped = read.stopped
    return { tokens: tokens.length, atUs: Math.round(arrivalUs + sinceUs), answeringFrom: read.answeringFrom }
  })
  return {
    ...requested,
    // The replica that began it may have had room for more.
    maxOutputTokens: Math.max(maxOutputTokens, output.length),
    begun: {
      output: Int32Array.from(output),
      steps: seen,
      prefix: [...prefix, ...hasher.push(output)],
      stopped,
      ...(start !== undefined && { start }),
    },
  }
}

/** All its tokens are out: only its end is to be told. */
export function isOver({ begun, maxOutputTokens }: Requested): boolean {
  return begun !== undefined && (begun.stopped === true || begun.output.length >= maxOutputTokens)
}

function wrong(why: string): UserError {
  return userError("engine_failed", { detail: `the answer cannot go on here: ${why}` })
}
