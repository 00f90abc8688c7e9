# A plan of messages as Terraform would hold them: one resource for each recipient.
locals {
  people = { for row in csvdecode(file("${path.module}/people.csv")) : row.mobile => row }
}

resource "terraform_data" "send" {
  for_each = local.people
  input    = { to = "+91${each.key}", first_name = each.value.first_name, city = each.value.city }
}
