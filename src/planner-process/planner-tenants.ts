/** Tenants of all engines of one planner: the engines name them, and the planner shares each engine among them. */
import { Places } from "../replica/places.ts"
import type { QueueView } from "../serve/front.ts"
import { MOST_NAMED, OTHERS, type Tenant, type TenantOptions, Tenants } from "../serve/tenants.ts"
import { FiguresByTenant } from "../telemetry/tenant-figures.ts"

export class PlannerTenants {
  readonly all: Tenants
  readonly figures: FiguresByTenant
  /** None is refused: the engine has taken it already. */
  readonly #places: Places

  /** Which tenant a request is of is the engine's word: keys are its API's matter. */
  constructor(options: Pick<TenantOptions, "tenants">) {
    this.all = new Tenants({ ...options, trustHeader: true })
    this.figures = new FiguresByTenant({ names: this.all.configured, mostOthers: MOST_NAMED, rest: OTHERS })
    this.#places = new Places(Number.POSITIVE_INFINITY, { weights: this.all.weights })
  }

  get queue(): QueueView {
    return this.#places
  }

  of(name: string): Tenant {
    return this.all.of(name, (number) => this.#places.takenBy(number) === 0)
  }

  /** A request of it is live, until it has `left`. */
  came({ number }: Pick<Tenant, "number">): void {
    this.#places.take(1, number, true)
  }
  left({ number }: Pick<Tenant, "number">): void {
    this.#places.giveBack(1, number)
  }
}
