/** The status of a gateway of several processes: what each counts is added up; of its backends each knows the whole. */
import type { StatusJson } from "./status.ts"

/** Of one process its own. */
export function summedStatus(all: readonly StatusJson[]): StatusJson {
  const first = all[0]!
  if (all.length === 1) return first
  const sum = (of: (one: StatusJson) => number) => all.reduce((total, one) => total + of(one), 0)
  return {
    ...first,
    uptime_s: Math.max(...all.map(({ uptime_s }) => uptime_s)),
    requests: mostOf(all.map(({ requests }) => requests)),
    kv: mostOf(all.map(({ kv }) => kv)),
    prefill_backlog_tokens: Math.max(...all.map((one) => one.prefill_backlog_tokens)),
    tokens_per_sec: sum((one) => one.tokens_per_sec),
    requests_per_sec: sum((one) => one.requests_per_sec),
    tenants: tenantsOf(all),
    classes: first.classes.map((own) => ({
      ...own,
      window: added(
        all.flatMap(({ classes }) => classes.find(({ name }) => name === own.name)?.window ?? []),
      ),
    })),
  }
}

/** What they say of the same differs by what is under way between them. */
function mostOf<T extends Record<string, number>>(views: readonly T[]): T {
  const names = Object.keys(views[0]!)
  return Object.fromEntries(names.map((name) => [name, Math.max(...views.map((view) => view[name]!))])) as T
}

function tenantsOf(all: readonly StatusJson[]): StatusJson["tenants"] {
  const byName = Map.groupBy(
    all.flatMap(({ tenants }) => tenants),
    ({ name }) => name,
  )
  return [...byName.values()].map((rows) => ({
    ...added(rows),
    name: rows[0]!.name,
    weight: rows[0]!.weight,
  }))
}

type Counts = number | string | { readonly [name: string]: Counts }

/** Numbers of the same place, however deep. */
function added<T>(all: readonly T[]): T {
  return sumOf(all as readonly Counts[]) as T
}

function sumOf(all: readonly Counts[]): Counts {
  const [first] = all
  if (typeof first === "number") return (all as readonly number[]).reduce((sum, one) => sum + one, 0)
  if (typeof first !== "object") return first!
  const parts = all as readonly Readonly<Record<string, Counts>>[]
  return Object.fromEntries(
    Object.keys(first).map((name) => [name, sumOf(parts.flatMap((part) => part[name] ?? []))]),
  )
}
