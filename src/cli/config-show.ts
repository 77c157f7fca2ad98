/** What a server would run with, each value with where it comes from; without any secret. */
import type { Command } from "commander"
import { faultsOf, type ServerConfig } from "../config/file.ts"
import { SETTINGS } from "../config/settings.ts"
import type { SloClass } from "../config/slo-classes.ts"
import type { TenantConfig } from "../config/tenants.ts"
import { slipsIn, variableOf } from "./option-sources.ts"
import type { ServeOptions } from "./serve-options.ts"
import { configOf } from "./serve-parts.ts"

interface Shown {
  section: string
  name: string
  value: unknown
  /** null: nothing says it, it follows from the model or the machine. */
  from: string | null
}

/** The exit code. */
export async function check(path: string): Promise<number> {
  const faults = faultsOf(path)
  if (faults.length > 0) {
    process.stderr.write(faults.map((fault) => `${fault}\n`).join(""))
    process.stderr.write(
      `${faults.length === 1 ? "1 fault" : `${faults.length} faults`}; docs/config.md explains every field\n`,
    )
    return 2
  }
  const { classes, tenants, keys, backends, settings } = configOf({ config: path })
  const counts = {
    ...{ classes: classes.all.length, tenants: tenants.length },
    keys: keys.length + tenants.reduce((sum, tenant) => sum + tenant.keys.length, 0),
    ...{ backends: backends.length, options: settings.length },
  }
  const told = Object.entries(counts).map(([what, count]) => `${what}: ${count}`)
  process.stdout.write(`${path} is right (${told.join(", ")})\n`)
  return 0
}

export function shown(command: Command, options: ServeOptions & { json?: boolean }): string {
  const config = configOf(options)
  const rows = rowsOf(command, options)
  const about = { classes: classesOf(config), tenants: tenantsOf(config, options), keys: keysOf(config) }
  const slips = slipsIn(command, process.env)
  if (options.json) {
    const settings = rows.map(({ section, name, value, from }) => [`${section}.${name}`, { value, from }])
    return `${JSON.stringify({ settings: Object.fromEntries(settings), ...about, slips }, null, 2)}\n`
  }
  return [
    "# A flag is stronger than the environment, that than the file, and that than the default.",
    ...slips.map((slip) => `# ${slip}`),
    ...Object.keys(SETTINGS).flatMap((section) => linesOf(section, rows)),
    ...Object.entries(about).flatMap(([name, entries]) => tableOf(name, entries)),
    "",
  ].join("\n")
}

function rowsOf(command: Command, options: ServeOptions): Shown[] {
  const values = options as unknown as Record<string, unknown>
  return Object.entries(SETTINGS).flatMap(([section, fields]) =>
    Object.entries(fields).flatMap(([name, { option }]) => {
      const flag = command.options.find((one) => one.attributeName() === option)
      if (flag === undefined) return []
      const source = command.getOptionValueSource(option)
      const from: Record<string, string> = {
        cli: `flag ${flag.long!.replace(/^--no-/, "--")}`,
        env: `environment ${variableOf(flag)}`,
        config: `file ${options.config}`,
        default: "default",
      }
      const value = values[option]
      const known = value === undefined || source === undefined ? null : (from[source] ?? source)
      return [{ section, name, value: value ?? null, from: known }]
    }),
  )
}

function linesOf(section: string, rows: readonly Shown[]): string[] {
  const own = rows.filter((row) => row.section === section)
  if (own.length === 0) return []
  const texts = own.map(({ name, value, from }) =>
    from === null ? [`  # ${name}:`, "not set"] : [`  ${name}: ${JSON.stringify(value)}`, from],
  )
  const width = Math.max(...texts.map(([text]) => text!.length))
  return [`${section}:`, ...texts.map(([text, from]) => `${text!.padEnd(width)}  # ${from}`)]
}

const tableOf = (name: string, entries: object): string[] => {
  const lines = Object.entries(entries).map(([key, value]) => `  ${key}: ${JSON.stringify(value)}`)
  return lines.length === 0 ? [] : [`${name}:`, ...lines]
}

function classesOf({ classes }: ServerConfig): object {
  const finite = (us: number) => (Number.isFinite(us) ? `${us / 1000}ms` : undefined)
  const one = ({ slo, tier, thinking }: SloClass) => ({
    ttft: slo.ttftSlowdown > 0 ? `${slo.ttftSlowdown}x` : finite(slo.ttftUs),
    tpot: finite(slo.tpotUs),
    ...(thinking && { thinking_tpot: finite(slo.thinkingTpotUs) }),
    max_gap: finite(slo.maxGapUs),
    ...(tier === "bestEffort" && { tier: "best_effort" }),
  })
  return Object.fromEntries(classes.all.map((c) => [c.name, one(c)]))
}

/** Of keys only how many there are. */
function tenantsOf({ tenants }: ServerConfig, { tenant = [] }: ServeOptions): object {
  const one = ({ weight, keys }: TenantConfig) => ({ weight, ...(keys.length > 0 && { keys: keys.length }) })
  return Object.fromEntries([...tenants, ...tenant].map((each) => [each.name, one(each)]))
}

function keysOf({ keys }: ServerConfig): object {
  return Object.fromEntries(
    keys.map(({ name, tenant, classes, requestsPerMinute, tokensPerMinute }) => [
      name,
      {
        ...{ tenant, ...(classes !== null && { classes }) },
        ...(requestsPerMinute !== null && { requests_per_minute: requestsPerMinute }),
        ...(tokensPerMinute !== null && { tokens_per_minute: tokensPerMinute }),
      },
    ]),
  )
}
