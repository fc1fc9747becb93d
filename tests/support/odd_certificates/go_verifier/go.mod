module go_verifier

go 1.24
