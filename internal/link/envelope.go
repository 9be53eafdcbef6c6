package link

// envelope is what travels: a message, or something between the two ends of the
// link that nobody else sees.
type envelope struct {
	Message
	// Beat says that the sender is there. It is a message and not a ping of the
	// WebSocket, because each side wants to know, and the library's ping waits.
	Beat *struct{} `json:"beat,omitempty"`
	// Renew asks for a new certificate, Renewed answers.
	Renew   *renew   `json:"renew,omitempty"`
	Renewed *renewed `json:"renewed,omitempty"`
}

type renew struct {
	Request []byte `json:"request"` // PKCS #10, DER
}

type renewed struct {
	Certificate []byte `json:"certificate,omitempty"` // DER
	Error       string `json:"error,omitempty"`
}

// aside reports whether it is not a message.
func (e envelope) aside() bool { return e.Beat != nil || e.Renew != nil || e.Renewed != nil }
