/** Which control tokens of a rendered prompt are the template's own. A template is run once more with the user's texts
 * disguised: in them the characters that control tokens cannot do without are another one. What still spells a
 * control token then came from the template. As no length changes, both runs fit character by character, however the
 * template cuts, trims or joins the texts. */
import { tokenize } from "@huggingface/jinja"
import type { ControlTokens } from "../engine/control-tokens.ts"

/** Stand-ins: ordinary characters that no filter of a template treats differently; the first are sorted beside `<`. */
const STAND_INS = [";", "=", "~", "^", "`", "@", "\ufdd0"]
const LETTER_OR_SPACE = /[\p{L}\p{N}\s]/u

/** Changes a text, one character for one. */
export type Disguise = (text: string) => string

export class Disguises {
  readonly #controls: ControlTokens
  /** Characters one of which every control token has. */
  readonly #marks: ReadonlySet<string>
  readonly #standIn: string
  /** Words with such a character that the template may look for in a user's text, such as `</think>`. */
  readonly #words: readonly string[]

  constructor(controls: ControlTokens, template: string) {
    this.#controls = controls
    const spellings = controls.all.map(({ text }) => text)
    this.#marks = new Set(
      spellings.map((text) => [...text].find((c) => !LETTER_OR_SPACE.test(c)) ?? text[0]!),
    )
    this.#standIn = STAND_INS.find((c) => !spellings.some((text) => text.includes(c)))!
    const words = literalsOf(template).map((word) => word.trim())
    this.#words = [...new Set(words)].filter(
      (word) => this.concerns(word) && controls.find(word).length === 0,
    )
  }

  /** Whether a text has anything to disguise. */
  concerns(text: string): boolean {
    for (const mark of this.#marks) if (text.includes(mark)) return true
    return false
  }

  /** All marks, but those of words that the template looks for: no piece of the text can be part of a control token. */
  readonly thorough: Disguise = (text) => {
    if (!this.concerns(text)) return text
    const units = text.split("")
    for (const [at, unit] of units.entries())
      if (this.#marks.has(unit) && !this.#isWordAt(text, at)) units[at] = this.#standIn
    return this.slight(units.join(""))
  }

  /** The marks of spelt control tokens only: nothing else looks different to the template. */
  readonly slight: Disguise = (text) => {
    let disguised = text
    // Again, because of spellings that overlap.
    for (let spelt = this.#controls.find(text); spelt.length > 0; spelt = this.#controls.find(disguised)) {
      const units = disguised.split("")
      for (const from of spelt) {
        const to = from + this.#controls.at(disguised, from)!.text.length
        for (let at = from; at < to; at++) if (this.#marks.has(units[at]!)) units[at] = this.#standIn
      }
      disguised = units.join("")
    }
    return disguised
  }

  /** Whether two renderings differ only where the second one is disguised. */
  fits(plain: string, disguised: string): boolean {
    if (plain.length !== disguised.length) return false
    for (let at = 0; at < plain.length; at++) {
      const [is, shown] = [plain[at]!, disguised[at]!]
      if (is !== shown && !(shown === this.#standIn && this.#marks.has(is))) return false
    }
    return true
  }

  #isWordAt(text: string, at: number): boolean {
    return this.#words.some((word) => {
      for (let i = 0; i < word.length; i++)
        if (word[i] === text[at] && text.startsWith(word, at - i)) return true
      return false
    })
  }
}

/** What stands between quotation marks in a template's own code. */
function literalsOf(template: string): string[] {
  const parts: { type: string; value: string }[] = tokenize(template, {
    lstrip_blocks: true,
    trim_blocks: true,
  })
  return parts.flatMap(({ type, value }) => (type === "StringLiteral" ? [value] : []))
}

/** A copy of a value in which all texts, names included, are disguised. */
export function disguiseAll<T>(value: T, disguise: Disguise): T {
  if (typeof value === "string") return disguise(value) as T
  if (Array.isArray(value)) return value.map((one) => disguiseAll(one, disguise)) as T
  if (typeof value !== "object" || value === null) return value
  const fields = Object.entries(value).map(([name, field]) => [disguise(name), disguiseAll(field, disguise)])
  return Object.fromEntries(fields) as T
}

/** Whether any text in a value has something to disguise. */
export function concernsAny(value: unknown, disguises: Disguises): boolean {
  if (typeof value === "string") return disguises.concerns(value)
  if (typeof value !== "object" || value === null) return false
  return Object.entries(value).some(
    ([name, field]) => disguises.concerns(name) || concernsAny(field, disguises),
  )
}
