/** What the client of one answer was told, for another replica to go on with it. Kept small: three numbers a step, one a
 * token, for as long as the answer lives. */
import type { SeenStart } from "../core/seen.ts"
import type { Begun, BegunText } from "../replica/host.ts"
import type { AnswerDelta } from "../text/answer.ts"

export class Told {
  readonly index: number
  ended = false
  /** The rest of its text, which is shown with its end alone: a replica that goes on would say it again. */
  rest: AnswerDelta | null = null
  start: SeenStart | null = null
  readonly #tokens: number[] = []
  /** Of each step: where its tokens begin, and when they came. */
  readonly #from: number[] = []
  readonly #atUs: number[] = []
  readonly #text: BegunText | null

  /** `begun`: what it was told before it came here. `texts`: also for replicas that know no tokens. */
  constructor(index: number, begun: Begun | null, nowUs: number, texts: boolean) {
    this.index = index
    this.#text = texts ? { content: "", reasoning: "", toolCalls: 0, ...begun?.text } : null
    this.start = begun?.start ?? null
    for (const { tokens, agoUs } of begun?.steps ?? []) this.step(tokens, null, nowUs - agoUs)
  }

  get tokens(): number {
    return this.#tokens.length
  }

  step(tokens: readonly number[], delta: AnswerDelta | null, atUs: number): void {
    this.#from.push(this.#tokens.length)
    this.#atUs.push(atUs)
    for (const token of tokens) this.#tokens.push(token)
    if (this.#text === null || delta === null) return
    this.#text.content += delta.content
    this.#text.reasoning += delta.reasoning
    this.#text.toolCalls += delta.toolCalls.filter(({ name }) => name !== null).length
  }

  /** null before its first token. */
  begun(nowUs: number): Begun | null {
    if (this.tokens === 0) return null
    const steps = this.#from.map((from, i) => ({
      tokens: this.#tokens.slice(from, this.#from[i + 1] ?? this.#tokens.length),
      agoUs: nowUs - this.#atUs[i]!,
    }))
    return {
      steps,
      ...(this.start !== null && { start: this.start }),
      ...(this.#text !== null && { text: { ...this.#text } }),
    }
  }
}
