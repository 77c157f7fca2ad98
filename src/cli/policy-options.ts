/** `--set name=value`: a policy's options by their own names. */
import type { PolicyOptions } from "../core/options.ts"
import { UserError } from "../errors.ts"

/** What --set may say: one of these words, or a number within [least, most]. */
const SETTABLE: Record<keyof PolicyOptions, readonly string[] | readonly [number, number]> = {
  maxBatchUs: [1, 1e12],
  margin: [0, 10],
  tokenBudget: [1, 1e9],
  bestEffortBatchUs: [0, 1e12],
  bestEffortEveryUs: [0, 1e12],
  bestEffortPatienceUs: [0, 1e12],
  admission: ["revocable", "firm"],
  kvShare: [0, 1e9],
  speculation: ["off", "on"],
  maxSpeculation: [1, 64],
  acceptancePrior: [0, 1],
  fixedDraft: [0, 64],
  hybridAlpha: [0, 1e6],
}
const WHOLE = new Set<keyof PolicyOptions>(["tokenBudget", "maxSpeculation", "fixedDraft"])
const isSettable = (name: string): name is keyof PolicyOptions => Object.hasOwn(SETTABLE, name)

/** What --set entries say. */
export function policyOptions(entries: readonly string[]): Partial<PolicyOptions> {
  const options = entries.map((entry) => {
    const [, name = "", text = ""] = /^(\w+)=(.+)$/.exec(entry) ?? []
    if (!isSettable(name))
      throw new UserError(
        `--set ${entry}: expected name=value with a name of ${Object.keys(SETTABLE).join(", ")}`,
      )
    const [least, most] = SETTABLE[name]
    if (typeof least === "string") {
      if (text === least || text === most) return [name, text]
      throw new UserError(`--set ${entry}: ${name} is ${least} or ${most}`)
    }
    const value = Number(text)
    const whole = WHOLE.has(name)
    if (value >= least && value <= Number(most) && (!whole || Number.isInteger(value))) return [name, value]
    throw new UserError(
      `--set ${entry}: ${name} is a ${whole ? "whole number" : "number"} from ${least} to ${most}`,
    )
  })
  return Object.fromEntries(options) as Partial<PolicyOptions>
}
