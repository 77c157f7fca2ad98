/** A model's control tokens as text spells them: where a text has them, and the text between them. */

export interface ControlToken {
  token: number
  /** Its spelling. */
  text: string
  /** White space before or after it belongs to it. */
  eatsLeft?: boolean
  eatsRight?: boolean
}

/** Which control tokens a text's spellings stand for: all of them, none, or those that begin at these offsets. */
export type Special = boolean | readonly number[]

/** One step of the spellings' tree, by UTF-16 code units. */
interface Node {
  next: Map<number, Node>
  ends: ControlToken | null
}

export class ControlTokens {
  readonly all: readonly ControlToken[]
  readonly #texts = new Map<number, string>()
  readonly #root: Node = { next: new Map(), ends: null }

  constructor(tokens: readonly ControlToken[]) {
    this.all = tokens.filter(({ text }) => text !== "")
    for (const control of this.all) {
      this.#texts.set(control.token, control.text)
      let node = this.#root
      for (let i = 0; i < control.text.length; i++) {
        const unit = control.text.charCodeAt(i)
        const next: Node = node.next.get(unit) ?? { next: new Map(), ends: null }
        node.next.set(unit, next)
        node = next
      }
      node.ends ??= control
    }
  }

  /** How a token is written; undefined: it is no control token. */
  textOf(token: number): string | undefined {
    return this.#texts.get(token)
  }

  /** The longest one that is spelt here, or null. */
  at(text: string, offset: number): ControlToken | null {
    let node: Node | undefined = this.#root.next.get(text.charCodeAt(offset))
    let found: ControlToken | null = null
    for (let i = offset + 1; node !== undefined; i++) {
      found = node.ends ?? found
      node = node.next.get(text.charCodeAt(i))
    }
    return found
  }

  /** Offsets of all that are spelt, from the left; none overlap. */
  find(text: string): number[] {
    const found: number[] = []
    for (let at = 0; at < text.length; at++) {
      const control = this.at(text, at)
      if (control === null) continue
      found.push(at)
      at += control.text.length - 1
    }
    return found
  }

  /** The control tokens at the offsets, as numbers, and the texts between them. */
  cut(text: string, offsets: readonly number[]): (string | number)[] {
    const pieces: (string | number)[] = []
    let from = 0
    let eaten = false
    const push = (to: number, eatsLeft: boolean) => {
      let piece = text.slice(from, to)
      if (eaten) piece = piece.trimStart()
      if (eatsLeft) piece = piece.trimEnd()
      if (piece !== "") pieces.push(piece)
    }
    for (const at of offsets) {
      const control = this.at(text, at)
      if (control === null) throw new RangeError(`no control token is spelt at ${at}`)
      push(at, control.eatsLeft ?? false)
      pieces.push(control.token)
      from = at + control.text.length
      eaten = control.eatsRight ?? false
    }
    push(text.length, false)
    return pieces
  }
}
