package names

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Skeleton is what a name looks like: names with the same one can be taken for
// each other. It is an own, short form of that of UTS 39 section 4, which serves
// warnings, never refusals: letters of Cyrillic, Greek, Armenian and Latin that
// look like ASCII ones, marks above and below letters, and the well-known
// 0 and o, 1 and l, rn and m, vv and w.
func Skeleton(name string) string {
	var b strings.Builder
	for _, c := range norm.NFD.String(strings.ToLower(Unicode(name))) {
		switch ascii, known := lookalikes[c]; {
		case known:
			b.WriteString(ascii)
		case !unicode.Is(unicode.Mn, c):
			b.WriteRune(c)
		}
	}
	return pairs.Replace(b.String())
}

var pairs = strings.NewReplacer("rn", "m", "vv", "w", "0", "o", "1", "l")

// lookalikes are letters with the ASCII text that they are taken for.
var lookalikes = table(
	// Cyrillic
	"а a", "в b", "г r", "е e", "з 3", "и u", "к k", "м m", "н h", "о o", "п n", "р p", "с c", "т t", "у y", "х x", "ь b", "ѕ s", "і i", "ј j",
	"һ h", "ӏ l", "ԁ d", "ԛ q", "ԝ w", "ѵ v", "ѡ w", "ҽ e", "қ k", "ғ f", "ү y", "ұ y", "ҳ x", "ө o", "ә e", "ԍ g", "ԏ t", "є e", "ћ h", "ђ h",
	// Greek
	"α a", "β b", "γ y", "ε e", "η n", "ι i", "κ k", "μ u", "ν v", "ο o", "π n", "ρ p", "σ o", "ς c", "τ t", "υ u", "χ x", "ω w", "ϲ c", "ϳ j", "ϱ p",
	// Armenian
	"օ o", "ո n", "ս u", "հ h", "ց g", "զ q", "յ j", "տ u", "ա w", "խ u", "ղ n", "ք p",
	// Latin
	"ı i", "ł l", "ø o", "đ d", "ħ h", "ŧ t", "ß b", "æ ae", "œ oe", "ŋ n", "ɑ a", "ɡ g", "ƒ f", "þ p", "ɩ i", "ȷ j", "ɾ r", "ʋ v", "ɯ w", "ƚ l", "ƙ k",
	"ɓ b", "ɗ d", "ɖ d", "ƭ t", "ɛ e", "ǝ e", "ɔ c", "ɪ i", "ʟ l", "ᴏ o", "ᴄ c", "ᴠ v", "ᴡ w", "ᴢ z", "ꜱ s", "ʏ y", "ʜ h", "ɴ n", "ʙ b", "ʀ r",
)

func table(entries ...string) map[rune]string {
	m := make(map[rune]string, len(entries))
	for _, entry := range entries {
		letter, ascii, _ := strings.Cut(entry, " ")
		for _, c := range letter { // of which there is one
			m[c] = ascii
		}
	}
	return m
}
