/** How often a drafter has tokens to offer and how often these are accepted, learnt per app (docs/design.md,
 * Speculation). A step's accepted prefix is a run of Bernoulli trials that ends with the first refusal; what was
 * drafted after it says nothing, and neither does a step in which the drafter had no idea: that one cost nothing. */

/** Trials that the prior is worth. */
const PRIOR_TRIALS = 50
/** Weight of the past: evidence never exceeds this many trials, so that a change of content shows soon. */
const MEMORY_TRIALS = 1000
/** An estimate that stopped speculation gets no new trials. So evidence fades with every undrafted token, until
 * the prior wins a short try: about one in a few thousand tokens. */
const FADE = 1 / 4000
/** A try that fails makes the next one wait twice as long, up to so many times: tries cost time, too. */
const MOST_PATIENCE = 64
/** A try is over when nothing was drafted for so many tokens. It has failed when less was accepted than the prior says.
 */
const TRY = 100
/** Before anything was asked, a drafter is taken to offer all that it is asked for. So many tokens is that worth. */
const PRIOR_ASKED = 20
/** Weight of the past in the hit rate, in tokens asked for. */
const MEMORY_ASKED = 1000
/** Outside this range lengths explode or the try never comes. */
const FLOOR = 0.05
const CEILING = 0.98

/** Expected tokens of a verification of `s` tokens, the sure one included: (1 − α^s) / (1 − α). With a drafter that
 * has something to offer in a share `hitRate` of the steps, else nothing: those of a step. */
export function expectedTokens(acceptance: number, s: number, hitRate = 1): number {
  return s <= 1 ? 1 : 1 + hitRate * ((1 - acceptance ** s) / (1 - acceptance) - 1)
}

/** Expected tokens that a step asked to verify `s` tokens really verifies, the sure one included. */
export function expectedRows(s: number, hitRate: number): number {
  return 1 + hitRate * (s - 1)
}

export class Acceptance {
  #prior: number
  /** Per app; those not seen yet have no entry. */
  #accepted: number[] = []
  #refused: number[] = []
  /** Tokens asked for, and offered. */
  #asked: number[] = []
  #offered: number[] = []
  #tries: { accepted: number; refused: number; quiet: number; patience: number }[] = []

  /** `prior`: probability assumed before any trial. */
  constructor(prior: number) {
    this.#prior = prior
  }

  /** A step was asked for `asked` drafted tokens for a request of `app`, got `draft` and yielded `tokens` (accepted
   * + 1). `ended`: the request stopped there, so that nothing was refused. */
  observe(app: number, asked: number, tokens: number, ended: boolean, draft = asked): void {
    if (asked > 0) this.#offer(app, asked, draft)
    // It had no idea: that is neither a trial nor time without drafting.
    if (asked > 0 && draft === 0) return
    // Without any evidence yet there is none to fade.
    if (draft === 0 && this.#accepted[app] === undefined) return
    const cut = Math.min(draft, tokens - 1)
    const refusal = cut < draft && !ended ? 1 : 0
    const accepted = (this.#accepted[app] ?? 0) + cut
    const refused = (this.#refused[app] ?? 0) + refusal
    const trials = accepted + refused
    const patience = this.#patience(app, draft > 0, cut, refusal)
    const keep = draft === 0 ? 1 - FADE / patience : trials > MEMORY_TRIALS ? MEMORY_TRIALS / trials : 1
    this.#accepted[app] = accepted * keep
    this.#refused[app] = refused * keep
    if (draft === 0 && this.#asked[app] !== undefined) {
      this.#asked[app] *= keep
      this.#offered[app]! *= keep
    }
  }

  #offer(app: number, asked: number, offered: number): void {
    const total = (this.#asked[app] ?? 0) + asked
    const keep = Math.min(1, MEMORY_ASKED / total)
    this.#asked[app] = total * keep
    this.#offered[app] = ((this.#offered[app] ?? 0) + offered) * keep
  }

  /** How many times longer than at first evidence lasts. */
  #patience(app: number, drafted: boolean, accepted: number, refused: number): number {
    this.#tries[app] ??= { accepted: 0, refused: 0, quiet: 0, patience: 1 }
    const last = this.#tries[app]
    if (drafted) {
      last.accepted += accepted
      last.refused += refused
      last.quiet = 0
    } else if (++last.quiet === TRY) {
      const failed = last.accepted < this.#prior * (last.accepted + last.refused)
      last.patience = failed ? Math.min(MOST_PATIENCE, 2 * last.patience) : 1
      last.accepted = last.refused = 0
    }
    return last.patience
  }

  /** Probability that one more drafted token of `app` is accepted. */
  of(app: number): number {
    const accepted = this.#accepted[app] ?? 0
    const trials = accepted + (this.#refused[app] ?? 0)
    const estimate = (this.#prior * PRIOR_TRIALS + accepted) / (PRIOR_TRIALS + trials)
    return Math.min(CEILING, Math.max(FLOOR, estimate))
  }

  /** Share of the tokens asked for `app` that the drafter had to offer: 1 for a draft model; a prompt lookup that often
   * has no idea has less. */
  hitRate(app: number): number {
    return (PRIOR_ASKED + (this.#offered[app] ?? 0)) / (PRIOR_ASKED + (this.#asked[app] ?? 0))
  }
}
