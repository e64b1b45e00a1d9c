package api

import "banger"

// Problem is an error (RFC 9457), served as application/problem+json.
type Problem struct {
	Title       string      `json:"title" doc:"the sentence for people"`
	Status      int         `json:"status"`
	Code        banger.Code `json:"code"`
	Hints       []string    `json:"hints,omitempty"`
	OperationID string      `json:"operation_id,omitempty"`
}

// ProblemType is the content type of a Problem.
const ProblemType = "application/problem+json"

// The methods that make a Problem an error of an HTTP framework.
func (p *Problem) Error() string             { return p.Title }
func (p *Problem) GetStatus() int            { return p.Status }
func (p *Problem) ContentType(string) string { return ProblemType }

// Err is the problem as the error everybody speaks.
func (p *Problem) Err() error {
	e := banger.Errorf(p.Code, "%s", p.Title)
	e.Hints, e.OperationID = p.Hints, p.OperationID
	return e
}
