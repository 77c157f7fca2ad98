/** What a vLLM is told of a choice's SLO: for a planner inside it (docs/vllm.md). One without a planner reads none of it. */
import { SLO_BOUNDS } from "../../config/objectives.ts"
import { othersArgs, SLO_ARGS_FIELD, type SloArgs, writeOrigin, writeSloArgs } from "../../serve/slo-args.ts"
import type { Course } from "./course.ts"

export function sloArgsOf({ job, judge, spec, begunTokens }: Course, nowUs: number): SloArgs {
  const { slo, tenant, session } = job.generation
  const arrivalUs = spec.arrivalUs ?? nowUs
  const asked = writeSloArgs(slo)
  return {
    ...(begunTokens > 0 && slo.tier === "slo" ? goingOn(asked, judge.dueUs - arrivalUs) : asked),
    ...writeOrigin({ tenant, session, arrivedUnixMs: Date.now() - (nowUs - arrivalUs) / 1000 }),
  }
}

/** Its first token is out: the first that this engine makes is due at the pace of those before it. */
function goingOn(
  { slo_ttft_ms: _time, slo_ttft_slowdown: _times, ...rest }: SloArgs,
  dueUs: number,
): SloArgs {
  const { min, max } = SLO_BOUNDS.ttftUs
  return dueUs > max ? rest : { ...rest, slo_ttft_ms: Math.max(min, dueUs) / 1000 }
}

/** The body's extra arguments as an engine is to have them: ours are the gateway's word, none where it reads none. */
export function withSloArgs(body: Readonly<Record<string, unknown>>, args: SloArgs | null): object {
  const all = { ...othersArgs(body[SLO_ARGS_FIELD]), ...args }
  return Object.keys(all).length > 0 ? { [SLO_ARGS_FIELD]: all } : {}
}
