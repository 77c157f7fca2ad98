/** From one advice after another to the number of replicas that is asked for: up at once, down only when nothing more was needed
 * for a while. Else every lull would cost a replica that the next burst has to wait for. */

interface Past {
  atUs: number
  best: number
}

export class Wanted {
  readonly #downAfterUs: number
  #past: Past[]

  /** `replicas` serve at `nowUs`: fewer are not asked for before `downAfterUs` have passed. */
  constructor(downAfterUs: number, replicas: number, nowUs: number) {
    this.#downAfterUs = downAfterUs
    this.#past = [{ atUs: nowUs, best: replicas }]
  }

  /** What is asked for after this advice: the most that was best within the last `downAfterUs`. */
  take(best: number, nowUs: number): number {
    const since = nowUs - this.#downAfterUs
    this.#past = this.#past.filter(({ atUs }) => atUs > since)
    this.#past.push({ atUs: nowUs, best })
    return this.#past.reduce((most, past) => Math.max(most, past.best), 1)
  }
}
