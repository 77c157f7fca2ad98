/** Which request it is that replicas die of. When a replica dies, what was there is suspected; what gets past the point where
 * it was then is cleared. Suspects are placed apart; those that were there at two deaths are tried in small groups, each
 * with a replica to itself. Only one that was alone with a replica when that died is found guilty: so none is failed in the
 * place of another, and one that kills is found at its second death if it was alone by then, else a little later. */

/** Tokens past the point of death that clear a request: some that came before it may have been lost on the way. */
const PAST_TOKENS = 4
/** A group on trial is so many times smaller than the company in which its members were suspected last. */
const GROUP_PARTS = 8
/** The share of a suspicion that a request has which, as far as known, was waiting: the word that it began may have been lost. */
const WAITING_SHARE = 0.5
/** From so many deaths on it runs on trial or not at all. */
const NEVER_WITH_OTHERS = 4

export class Suspect {
  /** Replicas that died of it, or of something else that was there, and it has not come past that point since. */
  deaths = 0
  #company = 0
  #mark = 0

  /** `output`: its tokens so far. `company`: the requests that were there, it included. */
  died(output: number, running: boolean, company: number): void {
    this.deaths += running ? 1 : WAITING_SHARE
    this.#mark = output
    this.#company = company
  }

  progressed(output: number): void {
    if (this.deaths > 0 && output >= this.#mark + PAST_TOKENS) this.deaths = 0
  }

  /** It is to be kept from others. */
  get onTrial(): boolean {
    return this.deaths >= 2
  }
  /** No matter how long it waits for that. */
  get dangerous(): boolean {
    return this.deaths >= NEVER_WITH_OTHERS
  }
  /** Its replica died again, and nothing else was there. */
  get guilty(): boolean {
    return this.onTrial && this.#company === 1
  }

  /** Most that may be tried together with it, itself included. */
  get groupSize(): number {
    return Math.max(1, Math.floor(this.#company / GROUP_PARTS))
  }
}
