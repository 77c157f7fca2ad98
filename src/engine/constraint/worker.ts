/** A grammar host's thread: compiles grammars and says which tokens may come next. Started by host.ts, which ends it
 * when it takes too long: nothing in here can be asked to stop. */
import { parentPort, workerData } from "node:worker_threads"
import type { CompiledGrammar } from "@mlc-ai/web-xgrammar"
import type { RequestId } from "../../core/protocol.ts"
import type { Course } from "./branch.ts"
import { CallingFollower } from "./calling-follower.ts"
import { boundsOf, markBytes, TokenLengths } from "./counted.ts"
import { Follower } from "./follower.ts"
import { FreeText, Spellings } from "./free-text.ts"
import type { Followed, HostAnswer, HostData, HostMessage } from "./messages.ts"
import { tokenBytes, vocabularySize } from "./vocabulary.ts"
import { loadXGrammar } from "./xgrammar.ts"
import { zonesOf } from "./zones.ts"

const { vocabulary, progress } = workerData as HostData
const place = new Int32Array(progress)
const library = loadXGrammar()
const compiler = newCompiler()
/** `text`: of a grammar that holds parts of free text. */
const compiled = new Map<string, { grammar: CompiledGrammar; course: Course; text: FreeText | null }>()
/** null: it has left its grammar. */
const followers = new Map<RequestId, Follower | CallingFollower | null>()
const spellings = new Spellings(vocabulary)
let tokenLengths: TokenLengths | null = null

compiler.then(() => answer({ ok: true, memoryBytes: process.memoryUsage().external }))
parentPort!.on("message", async (message: HostMessage) => {
  try {
    answer(await handle(message))
  } catch (error) {
    answer({ ok: false, message: error instanceof Error ? error.message : String(error) })
  }
})

function answer(what: HostAnswer): void {
  parentPort!.postMessage(what, "masks" in what ? [what.masks.buffer] : [])
}

async function handle(message: HostMessage): Promise<HostAnswer> {
  for (const id of message.drop.requests) {
    followers.get(id)?.dispose()
    followers.delete(id)
  }
  for (const text of message.drop.grammars) {
    compiled.get(text)?.grammar.dispose()
    compiled.delete(text)
  }
  if (message.type === "follow") return follow(message.requests)
  const grammar = await (await compiler).compileGrammar(message.grammar)
  const course = courseOf(message.grammar, grammar)
  const zones = zonesOf(message.grammar)
  const text = zones === null ? null : new FreeText(zones, course, spellings)
  compiled.set(message.grammar, { grammar, course, text })
  return { ok: true, memoryBytes: process.memoryUsage().external }
}

async function follow(requests: readonly Followed[]): Promise<HostAnswer> {
  const masks: Int32Array[] = []
  const counts: number[] = []
  for (const [i, request] of requests.entries()) {
    Atomics.store(place, 0, i)
    const ahead = await masksOf(request)
    masks.push(...ahead)
    counts.push(ahead.length)
  }
  const words = Math.ceil(vocabularySize(vocabulary) / 32)
  const joined = new Int32Array(words * masks.length)
  for (const [i, mask] of masks.entries()) joined.set(mask, i * words)
  return { ok: true, masks: joined, counts }
}

async function masksOf(request: Followed): Promise<Int32Array[]> {
  const follower = await followerOf(request)
  if (follower === null) return []
  for (const token of request.tokens) {
    if (await follower.take(token)) continue
    // It stands where it was: what comes later may seem to be let through.
    followers.set(request.id, null)
    follower.dispose()
    return []
  }
  return request.draft === null ? [] : follower.ahead(request.draft)
}

function courseOf(text: string, made: CompiledGrammar): Course {
  const bounds = boundsOf(text)
  const lengths = bounds.length > 0 ? (tokenLengths ??= new TokenLengths(vocabulary)) : null
  return { library, compiled: made, bounds, vocabulary, lengths }
}

async function followerOf({ id, grammar }: Followed): Promise<Follower | CallingFollower | null> {
  const known = followers.get(id)
  if (known !== undefined) return known
  const entry = compiled.get(grammar)
  if (!entry) throw new Error("the grammar is not compiled here")
  const { course, text } = entry
  const follower = text === null ? await Follower.start(course) : new CallingFollower(text)
  followers.set(id, follower)
  return follower
}

async function newCompiler() {
  const size = vocabularySize(vocabulary)
  const tokens = Array.from({ length: size }, (_, token) => tokenBytes(vocabulary, token))
  // Bytes where the types say strings: the binding takes both, and not every token is text.
  const all = [...tokens, ...markBytes()] as unknown as string[]
  const info = await library.TokenizerInfo.createTokenizerInfo(all, "raw", false, all.length, vocabulary.ends)
  return library.GrammarCompiler.createGrammarCompiler(info, false)
}
