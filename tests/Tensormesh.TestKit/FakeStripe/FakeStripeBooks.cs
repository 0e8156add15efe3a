using System.Globalization;
using System.Text.Json.Nodes;

namespace Tensormesh.TestKit;

/// <summary>The objects that the fake Stripe keeps, and what requests do to them.</summary>
public sealed class FakeStripeBooks(TimeProvider time, Action<string, JsonObject> emit)
{
    private const int LargestPage = 100;
    private const string Usd = "usd";

    private sealed record TestCard(string Brand, string Last4, int Month, int Year)
    {
        /// <summary>With which the bank refuses to have it attached, or to be charged.</summary>
        public string? AttachDecline { get; init; }
        public string? ChargeDecline { get; init; }
        public bool Authenticates { get; init; }
    }

    private static readonly Dictionary<string, TestCard> Tokens = new(StringComparer.Ordinal)
    {
        ["pm_card_visa"] = new("visa", "4242", 12, 2040),
        ["pm_card_mastercard"] = new("mastercard", "4444", 12, 2040),
        ["pm_card_amex"] = new("amex", "8431", 12, 2040),
        ["pm_card_chargeDeclined"] = new("visa", "0002", 12, 2040) { AttachDecline = "generic_decline" },
        ["pm_card_chargeCustomerFail"] = new("visa", "0341", 12, 2040) { ChargeDecline = "generic_decline" },
        ["pm_card_chargeCustomerFailInsufficientFunds"] = new("visa", "9995", 12, 2040) { ChargeDecline = "insufficient_funds" },
        ["pm_card_authenticationRequired"] = new("visa", "3184", 12, 2040) { Authenticates = true },
        ["pm_card_expired"] = new("visa", "0069", 1, 2020),
    };

    private readonly TimeProvider time = time;
    private readonly Action<string, JsonObject> emit = emit;
    private readonly Lock gate = new();
    private readonly Dictionary<string, JsonObject> customers = new(StringComparer.Ordinal);
    private readonly Dictionary<string, JsonObject> methods = new(StringComparer.Ordinal);
    private readonly Dictionary<string, JsonObject> setups = new(StringComparer.Ordinal);
    private readonly Dictionary<string, JsonObject> charges = new(StringComparer.Ordinal);
    private readonly Dictionary<string, TestCard> banks = new(StringComparer.Ordinal);
    /// <summary>In the order in which they were made.</summary>
    private readonly List<JsonObject> payments = [];
    private readonly List<JsonObject> refunds = [];
    private readonly Dictionary<string, JsonObject> disputes = new(StringComparer.Ordinal);
    private readonly List<JsonObject> balance = [];
    private int ids;

    /// <summary>What all payments took from cards, less refunds, in cents.</summary>
    public long NetCents
    {
        get
        {
            lock (gate) return payments.Sum(payment => Number(payment, "amount_received")) - refunds.Sum(refund => Number(refund, "amount"));
        }
    }

    public int SucceededPayments
    {
        get
        {
            lock (gate) return payments.Count(payment => Text(payment, "status") == "succeeded");
        }
    }

    /// <summary>A browser has entered a card for a SetupIntent. Returns the id of the payment method, which its customer has now.</summary>
    public string ConfirmSetup(string setupIntentId, string token)
    {
        lock (gate)
        {
            var setup = setups[setupIntentId];
            var method = NewMethod(token, Text(setup, "customer"));
            (setup["status"], setup["payment_method"]) = ("succeeded", Text(method, "id"));
            emit("setup_intent.succeeded", Copy(setup));
            return Text(method, "id")!;
        }
    }

    /// <summary>The holder has answered the bank in a browser.</summary>
    public void Authenticate(string paymentIntentId, bool agrees)
    {
        lock (gate)
        {
            var payment = payments.Single(one => Text(one, "id") == paymentIntentId);
            if (agrees) Succeed(payment);
            else Refuse(payment, "payment_intent_authentication_failure", null, "The holder did not authenticate the payment.");
        }
    }

    /// <summary>From now on the bank refuses this card, or no longer does.</summary>
    public void Decline(string paymentMethodId, string? declineCode)
    {
        lock (gate) banks[paymentMethodId] = banks[paymentMethodId] with { ChargeDecline = declineCode };
    }

    public void DeleteCustomer(string customerId)
    {
        lock (gate)
        {
            var gone = customers[customerId];
            foreach (var method in methods.Values.Where(method => Text(method, "customer") == customerId)) method["customer"] = null;
            customers[customerId] = new JsonObject { ["id"] = customerId, ["object"] = "customer", ["deleted"] = true };
            emit("customer.deleted", Copy(gone));
        }
    }

    public void DetachCard(string paymentMethodId)
    {
        lock (gate) Detach(methods[paymentMethodId]);
    }

    /// <summary>A payment that somebody made in the dashboard. Returns its id.</summary>
    public string PayByHand(string customerId, long cents, IReadOnlyDictionary<string, string>? metadata = null, string currency = Usd)
    {
        lock (gate)
        {
            var payment = NewPayment(customerId, cents, currency);
            foreach (var (name, value) in metadata ?? new Dictionary<string, string>()) payment["metadata"]![name] = value;
            payment["payment_method"] = Text(NewMethod("pm_card_visa", customerId), "id");
            Succeed(payment);
            return Text(payment, "id")!;
        }
    }

    /// <summary>The holder of the card disputes what is left of the payment, or only asks about it, which takes nothing. Returns the dispute's id.</summary>
    public string Dispute(string paymentIntentId, bool isInquiry = false)
    {
        lock (gate)
        {
            var charge = charges[Text(payments.Single(one => Text(one, "id") == paymentIntentId), "latest_charge")!];
            charge["disputed"] = true;
            var dispute = New("dp", "dispute");
            (dispute["charge"], dispute["payment_intent"], dispute["currency"]) = (Text(charge, "id"), paymentIntentId, Text(charge, "currency"));
            (dispute["amount"], dispute["status"]) = (Number(charge, "amount") - Number(charge, "amount_refunded"), isInquiry ? "warning_needs_response" : "needs_response");
            dispute["balance_transactions"] = new JsonArray();
            disputes.Add(Text(dispute, "id")!, dispute);
            if (!isInquiry) MoveForDispute(dispute, -Number(dispute, "amount"));
            emit("charge.dispute.created", Copy(dispute));
            return Text(dispute, "id")!;
        }
    }

    /// <summary>The card company has decided it. What we win comes back.</summary>
    public void DecideDispute(string disputeId, bool isWon)
    {
        lock (gate)
        {
            var dispute = disputes[disputeId];
            dispute["status"] = isWon ? "won" : "lost";
            if (isWon)
            {
                MoveForDispute(dispute, Number(dispute, "amount"));
                emit("charge.dispute.funds_reinstated", Copy(dispute));
            }

            emit("charge.dispute.closed", Copy(dispute));
        }
    }

    public FakeStripeAnswer Answer(string method, string path, IReadOnlyDictionary<string, string> form)
    {
        lock (gate)
        {
            return (method, path.Split('/', StringSplitOptions.RemoveEmptyEntries)) switch
            {
                ("POST", ["v1", "customers"]) => CreateCustomer(form),
                ("GET", ["v1", "customers", var id]) => Found(customers.GetValueOrDefault(id), "customer", id),
                ("POST", ["v1", "customers", var id]) => UpdateCustomer(id, form),
                ("GET", ["v1", "customers", var id, "payment_methods"]) =>
                    Page([.. methods.Values.Where(one => Text(one, "customer") == id)], form),
                ("GET", ["v1", "payment_methods", var id]) => GetMethod(id),
                ("POST", ["v1", "payment_methods", var id, "attach"]) => Attach(id, form),
                ("POST", ["v1", "payment_methods", var id, "detach"]) => Detach(id),
                ("POST", ["v1", "setup_intents"]) => CreateSetup(form),
                ("GET", ["v1", "setup_intents", var id]) => Found(setups.GetValueOrDefault(id), "setupintent", id),
                ("POST", ["v1", "payment_intents"]) => CreatePayment(form),
                ("GET", ["v1", "payment_intents"]) => Page(
                    Recent([.. payments.Where(one => !form.TryGetValue("customer", out var customer) || Text(one, "customer") == customer)], form), form),
                ("GET", ["v1", "payment_intents", var id]) =>
                    Found(payments.Find(one => Text(one, "id") == id), "payment_intent", id, form),
                ("POST", ["v1", "payment_intents", var id, "confirm"]) => Confirm(id, form),
                ("POST", ["v1", "refunds"]) => Refund(form),
                ("GET", ["v1", "refunds"]) => Page([.. refunds.Where(one => Text(one, "charge") == form["charge"])], form),
                ("GET", ["v1", "charges", var id]) => Found(charges.GetValueOrDefault(id), "charge", id),
                ("GET", ["v1", "disputes", var id]) => Found(disputes.GetValueOrDefault(id), "dispute", id),
                ("GET", ["v1", "balance_transactions"]) => Page(Recent(balance, form), form),
                _ => FakeStripeAnswer.Error(404, "invalid_request_error", null, $"Unrecognized request URL ({method}: {path})."),
            };
        }
    }

    private FakeStripeAnswer CreateCustomer(IReadOnlyDictionary<string, string> form)
    {
        var customer = New("cus", "customer");
        customer["metadata"] = Metadata(form);
        customer["description"] = form.GetValueOrDefault("description");
        customer["invoice_settings"] = new JsonObject { ["default_payment_method"] = null };
        customers.Add(Text(customer, "id")!, customer);
        return FakeStripeAnswer.Ok(customer);
    }

    private FakeStripeAnswer UpdateCustomer(string id, IReadOnlyDictionary<string, string> form)
    {
        if (!customers.TryGetValue(id, out var customer) || customer.ContainsKey("deleted")) return FakeStripeAnswer.Missing("customer", id);
        if (form.TryGetValue("invoice_settings[default_payment_method]", out var method))
        {
            if (!methods.TryGetValue(method, out var card) || Text(card, "customer") != id) return FakeStripeAnswer.Missing("payment_method", method);
            customer["invoice_settings"]!["default_payment_method"] = method;
        }

        return FakeStripeAnswer.Ok(customer);
    }

    private FakeStripeAnswer GetMethod(string id)
    {
        if (methods.TryGetValue(id, out var method)) return FakeStripeAnswer.Ok(method);
        return Tokens.TryGetValue(id, out var card) ? FakeStripeAnswer.Ok(Render(id, card, null)) : FakeStripeAnswer.Missing("payment_method", id);
    }

    private FakeStripeAnswer Attach(string id, IReadOnlyDictionary<string, string> form)
    {
        var customer = form["customer"];
        if (!customers.TryGetValue(customer, out var owner) || owner.ContainsKey("deleted")) return FakeStripeAnswer.Missing("customer", customer);
        if (!Tokens.TryGetValue(id, out var card))
        {
            return methods.ContainsKey(id)
                ? FakeStripeAnswer.Error(400, "invalid_request_error", "payment_method_unexpected_state", "It was attached before, or used without being attached.")
                : FakeStripeAnswer.Missing("payment_method", id);
        }

        return card.AttachDecline is { } decline
            ? FakeStripeAnswer.Error(402, "card_error", "card_declined", "Your card was declined.", decline)
            : FakeStripeAnswer.Ok(NewMethod(id, customer));
    }

    private FakeStripeAnswer Detach(string id)
    {
        if (!methods.TryGetValue(id, out var method)) return FakeStripeAnswer.Missing("payment_method", id);
        if (Text(method, "customer") is null)
        {
            return FakeStripeAnswer.Error(400, "invalid_request_error", null, "The payment method you provided is not attached to a customer so detachment is impossible.");
        }

        Detach(method);
        return FakeStripeAnswer.Ok(method);
    }

    private void Detach(JsonObject method)
    {
        method["customer"] = null;
        emit("payment_method.detached", Copy(method));
    }

    private FakeStripeAnswer CreateSetup(IReadOnlyDictionary<string, string> form)
    {
        if (Removed(form) is { } refused) return refused;
        if (customers.GetValueOrDefault(form["customer"])?.ContainsKey("deleted") != false) return FakeStripeAnswer.Missing("customer", form["customer"], "customer");
        var setup = New("seti", "setup_intent");
        setup["client_secret"] = $"{Text(setup, "id")}_secret_{Guid.NewGuid():n}";
        (setup["customer"], setup["usage"], setup["status"], setup["payment_method"]) = (form["customer"], form["usage"], "requires_payment_method", null);
        setups.Add(Text(setup, "id")!, setup);
        return FakeStripeAnswer.Ok(setup);
    }

    private FakeStripeAnswer CreatePayment(IReadOnlyDictionary<string, string> form)
    {
        if (Removed(form) is { } refused) return refused;
        var (customer, method) = (form["customer"], form["payment_method"]);
        if (!customers.TryGetValue(customer, out var owner) || owner.ContainsKey("deleted")) return FakeStripeAnswer.Missing("customer", customer, "customer");
        if (!methods.TryGetValue(method, out var card) || Text(card, "customer") != customer) return FakeStripeAnswer.Missing("PaymentMethod", method, "payment_method");
        var payment = NewPayment(customer, long.Parse(form["amount"], CultureInfo.InvariantCulture), form["currency"]);
        payment["metadata"] = Metadata(form);
        payment["payment_method"] = method;
        return form.GetValueOrDefault("confirm") == "true" ? Charge(payment, form) : FakeStripeAnswer.Ok(payment);
    }

    private FakeStripeAnswer Confirm(string id, IReadOnlyDictionary<string, string> form)
    {
        if (payments.Find(one => Text(one, "id") == id) is not { } payment) return FakeStripeAnswer.Missing("payment_intent", id);
        if (form.TryGetValue("payment_method", out var method)) payment["payment_method"] = method;
        return Charge(payment, form);
    }

    private FakeStripeAnswer Charge(JsonObject payment, IReadOnlyDictionary<string, string> form)
    {
        var bank = banks[Text(payment, "payment_method")!];
        if (bank.ChargeDecline is { } decline)
        {
            Refuse(payment, "card_declined", decline, decline == "insufficient_funds" ? "Your card has insufficient funds." : "Your card was declined.");
            return FakeStripeAnswer.Error(402, "card_error", "card_declined", Text(payment["last_payment_error"]!, "message")!, decline, Copy(payment));
        }

        if (bank.Authenticates && form.GetValueOrDefault("off_session") == "true")
        {
            const string Code = "authentication_required";
            Refuse(payment, Code, Code, "Your card was declined. This transaction requires authentication.");
            return FakeStripeAnswer.Error(402, "card_error", Code, Text(payment["last_payment_error"]!, "message")!, Code, Copy(payment));
        }

        if (bank.Authenticates)
        {
            payment["status"] = "requires_action";
            return FakeStripeAnswer.Ok(payment);
        }

        Succeed(payment);
        return FakeStripeAnswer.Ok(payment);
    }

    private void Succeed(JsonObject payment)
    {
        var charge = New("ch", "charge");
        foreach (var name in (string[])["amount", "currency", "customer", "payment_method"]) charge[name] = payment[name]?.DeepClone();
        (charge["payment_intent"], charge["amount_refunded"], charge["disputed"], charge["refunded"]) = (Text(payment, "id"), 0, false, false);
        charges.Add(Text(charge, "id")!, charge);
        (payment["status"], payment["amount_received"], payment["latest_charge"], payment["last_payment_error"]) =
            ("succeeded", Number(payment, "amount"), Text(charge, "id"), null);
        AddToBalance("charge", Text(charge, "id")!, Number(payment, "amount"));
        emit("payment_intent.succeeded", Copy(payment));
    }

    private void Refuse(JsonObject payment, string code, string? declineCode, string message)
    {
        payment["status"] = "requires_payment_method";
        payment["last_payment_error"] = new JsonObject
        {
            ["type"] = "card_error",
            ["code"] = code,
            ["decline_code"] = declineCode,
            ["message"] = message,
        };
        emit("payment_intent.payment_failed", Copy(payment));
    }

    private FakeStripeAnswer Refund(IReadOnlyDictionary<string, string> form)
    {
        var id = form["payment_intent"];
        if (payments.Find(one => Text(one, "id") == id) is not { } payment) return FakeStripeAnswer.Missing("payment_intent", id);
        if (Text(payment, "latest_charge") is not { } chargeId) return FakeStripeAnswer.Error(400, "invalid_request_error", "charge_not_found", "It has no successful charge.");
        var charge = charges[chargeId];
        var (amount, before) = (form.TryGetValue("amount", out var some) ? long.Parse(some, CultureInfo.InvariantCulture) : Number(charge, "amount"), Number(charge, "amount_refunded"));
        if (before == Number(charge, "amount")) return FakeStripeAnswer.Error(400, "invalid_request_error", "charge_already_refunded", "It has been refunded.");
        if (before + amount > Number(charge, "amount")) return FakeStripeAnswer.Error(400, "invalid_request_error", "amount_too_large", "More than what is left of the charge.");
        charge["amount_refunded"] = before + amount;
        charge["refunded"] = before + amount == Number(charge, "amount");
        var refund = New("re", "refund");
        (refund["amount"], refund["payment_intent"], refund["charge"], refund["status"], refund["currency"]) = (amount, id, chargeId, "succeeded", Usd);
        refunds.Add(refund);
        AddToBalance("refund", Text(refund, "id")!, -amount);
        emit("charge.refunded", Copy(charge));
        return FakeStripeAnswer.Ok(refund);
    }

    private static FakeStripeAnswer? Removed(IReadOnlyDictionary<string, string> form) => form.Keys.Any(key => key.StartsWith("payment_method_types", StringComparison.Ordinal))
        ? FakeStripeAnswer.Error(400, "invalid_request_error", "payment_method_types_no_longer_supported", "payment_method_types is no longer supported.")
        : null;

    private JsonObject NewPayment(string customer, long cents, string currency)
    {
        var payment = New("pi", "payment_intent");
        payment["client_secret"] = $"{Text(payment, "id")}_secret_{Guid.NewGuid():n}";
        (payment["amount"], payment["amount_received"], payment["currency"], payment["customer"], payment["status"]) = (cents, 0, currency, customer, "requires_confirmation");
        (payment["latest_charge"], payment["last_payment_error"], payment["payment_method"], payment["metadata"]) = (null, null, null, new JsonObject());
        payments.Add(payment);
        return payment;
    }

    private JsonObject NewMethod(string token, string? customer)
    {
        var method = Render(NewId("pm"), Tokens[token], customer);
        methods.Add(Text(method, "id")!, method);
        banks.Add(Text(method, "id")!, Tokens[token]);
        return method;
    }

    private JsonObject Render(string id, TestCard card, string? customer) => new()
    {
        ["id"] = id,
        ["object"] = "payment_method",
        ["type"] = "card",
        ["created"] = Now,
        ["customer"] = customer,
        ["metadata"] = new JsonObject(),
        ["card"] = new JsonObject { ["brand"] = card.Brand, ["last4"] = card.Last4, ["exp_month"] = card.Month, ["exp_year"] = card.Year },
    };

    private void MoveForDispute(JsonObject dispute, long cents)
    {
        AddToBalance("adjustment", Text(dispute, "id")!, cents);
        ((JsonArray)dispute["balance_transactions"]!).Add(Copy(balance[^1]));
    }

    private void AddToBalance(string type, string source, long cents)
    {
        var entry = New("txn", "balance_transaction");
        (entry["type"], entry["source"], entry["amount"], entry["net"], entry["fee"], entry["currency"], entry["status"]) = (type, source, cents, cents, 0, Usd, "available");
        balance.Add(entry);
    }

    private FakeStripeAnswer Found(JsonObject? node, string what, string id, IReadOnlyDictionary<string, string>? form = null)
        => node is null ? FakeStripeAnswer.Missing(what, id) : FakeStripeAnswer.Ok(Expand(node, form));

    /// <summary>Newest first, as every list of Stripe's.</summary>
    private FakeStripeAnswer Page(IReadOnlyList<JsonObject> all, IReadOnlyDictionary<string, string> form)
    {
        var limit = form.TryGetValue("limit", out var text) ? Math.Min(LargestPage, int.Parse(text, CultureInfo.InvariantCulture)) : 10;
        var newest = all.Reverse().ToList();
        var start = form.TryGetValue("starting_after", out var after) ? newest.FindIndex(one => Text(one, "id") == after) + 1 : 0;
        var page = newest.Skip(start).Take(limit).Select(one => (JsonNode)Expand(one, form)).ToArray();
        return FakeStripeAnswer.Ok(new JsonObject
        {
            ["object"] = "list",
            ["url"] = "/v1",
            ["has_more"] = start + page.Length < newest.Count,
            ["data"] = new JsonArray(page),
        });
    }

    private static IReadOnlyList<JsonObject> Recent(IReadOnlyList<JsonObject> all, IReadOnlyDictionary<string, string> form)
        => form.TryGetValue("created[gte]", out var since) ? [.. all.Where(one => Number(one, "created") >= long.Parse(since, CultureInfo.InvariantCulture))] : all;

    /// <summary>The two fields that this product has expanded: a payment's charge, and what an entry of the balance comes from.</summary>
    private JsonObject Expand(JsonObject node, IReadOnlyDictionary<string, string>? form)
    {
        var copy = Copy(node);
        foreach (var name in (string[])["latest_charge", "source"])
        {
            if (form is null || !form.Any(pair => pair.Key.StartsWith("expand", StringComparison.Ordinal) && pair.Value.Split('.')[^1] == name)) continue;
            if (Text(copy, name) is not { } id) continue;
            copy[name] = charges.TryGetValue(id, out var charge) || disputes.TryGetValue(id, out charge)
                ? Copy(charge)
                : Copy(refunds.Find(one => Text(one, "id") == id)!);
        }

        return copy;
    }

    private JsonObject New(string prefix, string kind) => new()
    {
        ["id"] = NewId(prefix),
        ["object"] = kind,
        ["created"] = Now,
        ["livemode"] = false,
        ["metadata"] = new JsonObject(),
    };

    private string NewId(string prefix) => string.Create(CultureInfo.InvariantCulture, $"{prefix}_{++ids:d6}{Guid.NewGuid().ToString("n")[..10]}");

    private long Now => time.GetUtcNow().ToUnixTimeSeconds();

    private static JsonObject Metadata(IReadOnlyDictionary<string, string> form) => new(
        form.Where(pair => pair.Key.StartsWith("metadata[", StringComparison.Ordinal))
            .Select(pair => KeyValuePair.Create(pair.Key["metadata[".Length..^1], (JsonNode?)pair.Value)));

    private static JsonObject Copy(JsonObject node) => (JsonObject)node.DeepClone();

    private static string? Text(JsonNode node, string name) => node[name]?.GetValue<string>();

    private static long Number(JsonNode node, string name) => long.Parse(node[name]!.ToJsonString(), CultureInfo.InvariantCulture);
}
