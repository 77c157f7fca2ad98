/** Explained requests for people: one in full, many in a table. */
import Table from "cli-table3"
import type { AnswerJson, PartsJson } from "../explain/json.ts"

const ms = (value: number | null): string => (value === null ? "–" : `${value.toFixed(1)} ms`)

/** What the parts are, in the order of their times. */
const PARTS: Readonly<Record<string, string>> = {
  before_ms: "before it could run (read, grammar, gateway)",
  queue_ms: "waiting for its first batch",
  prefill_ms: "own prefill",
  decode_ms: "own decodes",
  others_ms: "work of others",
  recompute_ms: "computing anew what was preempted",
  refused_drafts_ms: "drafts that were refused",
  slow_engine_ms: "steps longer (shorter: −) than predicted",
  failed_steps_ms: "failed steps",
  server_ms: "the server, between steps",
  engine_ms: "in another engine",
}

export function describeAnswers(answers: readonly AnswerJson[]): string {
  return answers.map(describe).join("\n\n")
}

function describe(answer: AnswerJson): string {
  return [
    headline(answer),
    ...figures(answer),
    ...verdict(answer),
    ...times(answer),
    ...decisions(answer),
  ].join("\n")
}

function headline({
  id,
  choice,
  choices,
  tenant,
  class: name,
  arrived_at,
  tier,
  served_tier,
}: AnswerJson): string {
  const which = choices > 1 ? `, answer ${choice + 1} of ${choices}` : ""
  const served = served_tier === null || served_tier === tier ? "" : `, served as ${served_tier}`
  return `${id}${which}: class ${name} (${tier}${served}), tenant ${tenant}, arrived ${arrived_at}`
}

function figures(answer: AnswerJson): string[] {
  const { prompt_tokens, cached_tokens, output_tokens, end, error, preemptions, slo } = answer
  if (prompt_tokens === null)
    return [`  ${end}${error === null ? "" : `: ${error.message}`} after ${ms(answer.e2e_ms)}`]
  const asked = (value: number | null) => (value === null ? "" : ` (asked for ${value} ms)`)
  return [
    `  ${prompt_tokens} prompt tokens (${cached_tokens} cached), ${output_tokens} output tokens, ended by ${end}` +
      (preemptions ? `, preempted ${preemptions} times` : ""),
    `  first token ${ms(answer.time_to_first_token_ms)}${asked(slo.ttft_ms)}, ` +
      `longest gap ${ms(answer.max_gap_ms)}${asked(slo.max_gap_ms)}, all ${ms(answer.e2e_ms)}` +
      (slo.tpot_ms === null ? "" : `; asked for ${slo.tpot_ms} ms a token`),
  ]
}

function verdict({ attained, reason, requests_per_sec, expected_wait_ms }: AnswerJson): string[] {
  if (attained === null) return ["  no objectives"]
  if (attained) return ["  kept all its objectives"]
  const wait = expected_wait_ms === null ? [] : [`  there should have been room in ${ms(expected_wait_ms)}`]
  if (reason === null) return ["  missed", ...wait]
  return [`  missed: ${reason.text}`, ...remedies(reason, requests_per_sec), ...wait]
}

function remedies({ would_have_kept: kept }: NonNullable<AnswerJson["reason"]>, rate: number): string[] {
  if (kept === null) return []
  const objectives = [
    ...(kept.ttft_ms === undefined ? [] : [`a TTFT of ${ms(kept.ttft_ms)}`]),
    ...(kept.tpot_ms === undefined ? [] : [`${ms(kept.tpot_ms)} a token`]),
    ...(kept.max_gap_ms === undefined ? [] : [`a longest gap of ${ms(kept.max_gap_ms)}`]),
  ]
  const share = kept.load === null ? null : `${Math.floor(100 * kept.load)}% of the load`
  const load =
    share === null ? [] : [rate > 0 ? `${share} (${(rate * kept.load!).toFixed(2)} requests/s)` : share]
  const all = [...(objectives.length === 0 ? [] : [objectives.join(" with ")]), ...load]
  return all.length === 0 ? [] : [`  would have been kept: ${all.join(", or ")}`]
}

function times({
  time,
  time_to_first_token: first,
  time_before_late: late,
  late_token,
}: AnswerJson): string[] {
  if (time === null) return []
  const columns: [string, PartsJson | null][] = [
    ["until the first token", first],
    ["before the late one", late_token?.objective === "ttft" ? null : late],
    ["in all", time],
  ]
  const shown = columns.filter((column): column is [string, PartsJson] => column[1] !== null)
  const table = new Table({
    head: ["", ...shown.map(([name]) => name)],
    style: { head: [], border: [] },
    colAligns: ["left", ...shown.map(() => "right" as const)],
  })
  // In whole µs, as they are: fractions of ms would add up to a little more or less, and round another way than the whole.
  const sum = (parts: PartsJson) =>
    Object.values(parts).reduce((us, one) => us + Math.round(one * 1000), 0) / 1000
  for (const [part, name] of Object.entries(PARTS))
    if (shown.some(([, parts]) => parts[part] !== 0))
      table.push([name, ...shown.map(([, parts]) => ms(parts[part] ?? null))])
  table.push(["sum", ...shown.map(([, parts]) => ms(sum(parts)))])
  return [table.toString()]
}

const DECISIONS: Readonly<Record<string, string>> = {
  ...{ promised: "its SLO was promised", turned_down: "turned down", came_back: "came back to the SLO tier" },
  preempted: "lost its KV to others",
}

function decisions({ decisions: all }: AnswerJson): string[] {
  return all.map(({ after_ms, what, reason, bound }) => {
    const why = [reason, bound].filter((one) => one !== null).join(", ")
    return `  after ${ms(after_ms)}: ${DECISIONS[what] ?? what}${why === "" ? "" : ` (${why})`}`
  })
}

export function describeList(
  requests: readonly AnswerJson[],
  { missed = false }: { missed?: boolean },
): string {
  if (requests.length === 0)
    return missed ? "No request that it remembers missed an objective." : "It remembers no request."
  const table = new Table({
    head: ["ended", "id", "class", "tenant", "tokens", "first token", "longest gap", "kept", "why"],
    style: { head: [], border: [] },
    colAligns: ["left", "left", "left", "left", "right", "right", "right", "left", "left"],
  })
  for (const one of requests)
    table.push([
      one.ended_at.slice(11, 19),
      one.choices > 1 ? `${one.id} [${one.choice}]` : one.id,
      one.class,
      one.tenant,
      one.output_tokens ?? "–",
      ms(one.time_to_first_token_ms),
      ms(one.max_gap_ms),
      one.attained === null ? "–" : one.attained ? "yes" : "no",
      one.reason?.code ?? one.error?.code ?? (one.end === "cancelled" ? "cancelled" : ""),
    ])
  return table.toString()
}
