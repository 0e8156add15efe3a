using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Cards on file and top-ups. Paths say "stripe" because the public product's do; the provider is whichever is configured.
/// </summary>
internal static partial class PaymentsApi
{
    public const string RequiresAction = "requires_action";

    internal static readonly Money Cent = Money.Parse("0.01");

    public static void MapPaymentsApi(this IEndpointRouteBuilder routes)
    {
        var stripe = routes.MapGroup("/v1/billing/stripe").WithTags("payments").Refusing(404);
        stripe.MapGet("/customers", GetCustomerAsync).Produces<CustomerAnswer>();
        stripe.MapGet("/customers/payment-methods", ListCardsAsync).Produces<CardsAnswer>();
        stripe.MapPost("/customers/payment-methods", AttachCardAsync).Produces<Done>().Refusing(402).RememberingAnswers();
        stripe.MapPost("/payment-intents", TopUpAsync).Produces<PaymentIntentAnswer>().Refusing(402).TakingIdempotencyKey();

        // Ours: the public API names no path for these.
        stripe.MapPost("/setup-intents", BeginSetupAsync).Produces<SetupIntentAnswer>().TakingIdempotencyKey();
        stripe.MapDelete("/customers/payment-methods/{paymentMethodId}", DetachCardAsync).Produces<Done>().RememberingAnswers();
        stripe.MapPost("/customers/payment-methods/{paymentMethodId}:default", MakeDefaultAsync).Produces<Done>().RememberingAnswers();
    }

    private static async Task<IResult> GetCustomerAsync(string? userId, Caller caller, AccountLookup accounts, Customers customers,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindAsync(account, cancellation) is null
            ? Problem.AccountUnknown(account)
            : TypedResults.Ok(new CustomerAnswer((await customers.OpenAsync(account, cancellation)).Value));
    }

    private static async Task<IResult> ListCardsAsync(string? userId, Caller caller, AccountLookup accounts, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        return await accounts.FindAsync(account, cancellation) is { } standing
            ? TypedResults.Ok(CardsAnswer.From(standing.Cards.Cards))
            : Problem.AccountUnknown(account);
    }

    /// <summary>For the payment company's own form in the customer's browser: the card is entered there, and named here afterwards.</summary>
    private static async Task<IResult> BeginSetupAsync(
        SetupIntentRequest body, HttpContext context, Caller caller, AccountLookup accounts, PaymentMethods cards, CancellationToken cancellation)
    {
        if (!caller.MayActFor(body.UserId, out var account, out var refusal)) return refusal;
        if (!IdempotencyKey.TryRead(context, caller, "api-setup", out var key, out refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        return await cards.BeginSetupAsync(account, key.Value, cancellation) is { } setup
            ? TypedResults.Ok(new SetupIntentAnswer(setup.SetupIntentId, setup.ClientSecret))
            : Problem.AccountUnknown(account);
    }

    private static async Task<IResult> AttachCardAsync(
        AttachCardRequest body, Caller caller, AccountLookup accounts, PaymentMethods cards, CancellationToken cancellation)
    {
        if (!caller.MayActFor(body.UserId, out var account, out var refusal)) return refusal;
        if (body.StripePaymentMethodId is not { Length: > 0 } id)
        {
            return Problem.Invalid("stripePaymentMethodId", "'stripePaymentMethodId' is missing: send the id that the payment company "
                + "gave for the card, such as pm_card_visa in the sandbox.");
        }

        if (!PaymentMethodId().IsMatch(id)) return UnknownPaymentMethod(id);
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        return await cards.AttachAsync(account, id, cancellation, caller.AsActor()) switch
        {
            AttachResult.Attached or AttachResult.AlreadyAttached => Done.Result,
            AttachResult.AccountMissing => Problem.AccountUnknown(account),
            AttachResult.UnknownPaymentMethod => UnknownPaymentMethod(id),
            AttachResult.CardExpired => CardProblem("card-expired", "The card has expired",
                $"The card behind '{id}' has expired and was not attached. Attach one that is still valid."),
            AttachResult.CardDeclined => CardProblem("card-declined", "The card was declined",
                $"The bank declined the card behind '{id}', so it was not attached. Attach another, or ask the bank that issued it."),
        };
    }

    private static async Task<IResult> DetachCardAsync(
        string paymentMethodId, string? userId, Caller caller, AccountLookup accounts, PaymentMethods cards, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        if (!PaymentMethodId().IsMatch(paymentMethodId)) return Problem.PaymentMethodNotAttached(paymentMethodId);
        return await cards.DetachAsync(account, paymentMethodId, cancellation, caller.AsActor()) switch
        {
            DetachResult.Detached => Done.Result,
            DetachResult.NotAttached => Problem.PaymentMethodNotAttached(paymentMethodId),
            DetachResult.AccountMissing => Problem.AccountUnknown(account),
        };
    }

    private static async Task<IResult> MakeDefaultAsync(
        string paymentMethodId, string? userId, Caller caller, AccountLookup accounts, PaymentMethods cards, CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        return PaymentMethodId().IsMatch(paymentMethodId) && await cards.MakeDefaultAsync(account, paymentMethodId, cancellation, caller.AsActor())
            ? Done.Result
            : Problem.PaymentMethodNotAttached(paymentMethodId);
    }

    /// <summary>
    /// Charges and credits at once; where the bank asks the holder first, the browser finishes it with the secret and an event of the payment
    /// company credits it.
    /// </summary>
    private static async Task<IResult> TopUpAsync(
        TopUpRequest body, HttpContext context, Caller caller, AccountLookup accounts, Till till, CancellationToken cancellation)
    {
        if (!caller.MayActFor(body.UserId, out var account, out var refusal)) return refusal;
        if (!IdempotencyKey.TryRead(context, caller, "api-pay", out var key, out refusal)) return refusal;
        if (!MoneyJson.TryReadPositive(body.Amount, "amount", "A top-up adds money.", out var amount, out refusal)) return refusal;
        if (amount.Nanos % Cent.Nanos != 0)
        {
            return Problem.Invalid("amount.nanos",
                $"Cards are charged in whole cents: {amount.ToDecimalString()} is not. Make 'amount.nanos' a multiple of {Cent.Nanos}.");
        }

        if (await accounts.FindAsync(account, cancellation) is not { } standing) return Problem.AccountUnknown(account);
        var id = string.IsNullOrEmpty(body.StripePaymentMethodId)
            ? standing.Cards.Cards.FirstOrDefault(card => card.IsDefault)?.PaymentMethodId
            : body.StripePaymentMethodId;
        if (id is null)
        {
            return Problem.Invalid("stripePaymentMethodId",
                "The account has no card on file. Attach one with POST /v1/billing/stripe/customers/payment-methods first.");
        }

        if (!PaymentMethodId().IsMatch(id)) return Problem.PaymentMethodNotAttached(id);
        return await till.TopUpAsync(account, amount, id, key.Value, caller) switch
        {
            TopUpResult.Credited credited => TypedResults.Ok(new PaymentIntentAnswer(credited.PaymentIntentId, credited.ClientSecret)),
            TopUpResult.AlreadyCredited before => TypedResults.Ok(new PaymentIntentAnswer(before.PaymentIntentId, before.ClientSecret)),
            TopUpResult.AuthenticationRequired asked =>
                TypedResults.Ok(new PaymentIntentAnswer(asked.PaymentIntentId, asked.ClientSecret) { Status = RequiresAction }),
            TopUpResult.InDoubt => Problem.PaymentCompanyUnavailable(),
            TopUpResult.Declined declined => Declined(declined),
            TopUpResult.Refused refused => Describe(refused.Reason, account, amount, id),
            var other => throw new InvalidOperationException($"no answer is known for {other}"),
        };
    }

    private static Problem Describe(TopUpRefusal refusal, AccountId account, Money amount, string id) => refusal switch
    {
        TopUpRefusal.AccountMissing => Problem.AccountUnknown(account),
        TopUpRefusal.AmountOutOfRange => Problem.Invalid("amount", $"A top-up is from {TopUps.Minimum} to {TopUps.Maximum}, not {amount}."),
        TopUpRefusal.NotAttached => Problem.PaymentMethodNotAttached(id),
        TopUpRefusal.CardExpired => CardProblem("card-expired", "The card has expired",
            $"The card behind '{id}' has expired. Nothing was charged. Attach a valid one, or name another that is on file."),
        TopUpRefusal.KeyReusedWithOtherContent => Problem.KeyReused("This Idempotency-Key was used before for another amount or card."),
    };

    private static Problem Declined(TopUpResult.Declined declined) => new(402, "payment-declined", "The payment was declined",
        $"{declined.Message.TrimEnd('.')}. Nothing was charged and nothing was credited. Use another card, or ask the bank that issued "
            + $"this one; try again with a new Idempotency-Key.")
    {
        Extra = new Dictionary<string, string> { ["declineCode"] = declined.Code },
    };

    private static Problem UnknownPaymentMethod(string id) => new(400, "payment-method-unknown", "No such payment method",
        $"The payment company knows no payment method '{id}'. Send the id that it gave for the card; in the sandbox, a test token such "
            + $"as pm_card_visa.", "stripePaymentMethodId");

    private static Problem CardProblem(string kind, string title, string detail) => new(402, kind, title, detail, "stripePaymentMethodId");

    [GeneratedRegex(@"\A[A-Za-z0-9_-]{1,255}\z", RegexOptions.CultureInvariant)]
    private static partial Regex PaymentMethodId();
}

internal sealed record CustomerAnswer(string StripeCusId);

internal sealed record AttachCardRequest(string? UserId, string? StripePaymentMethodId);

/// <summary>The public API gives the ids twice, as a flat list and in the objects.</summary>
internal sealed record CardsAnswer(IReadOnlyList<string> StripePaymentMethodIds, IReadOnlyList<CardJson> PaymentMethods)
{
    public static CardsAnswer From(IReadOnlyList<Card> cards) =>
        new([.. cards.Select(card => card.PaymentMethodId)], [.. cards.Select(CardJson.From)]);
}

internal sealed record CardJson(string StripePaymentMethodId, string Type, string Brand, string Last4, int ExpMonth, int ExpYear,
    bool IsDefault)
{
    public static CardJson From(Card card) => new(
        card.PaymentMethodId, "STRIPE_PAYMENT_METHOD_TYPE_CARD", card.Brand, card.Last4, card.ExpMonth, card.ExpYear, card.IsDefault);
}

/// <param name="StripePaymentMethodId">Left out: the default card.</param>
internal sealed record TopUpRequest(string? UserId, MoneyJson? Amount, string? StripePaymentMethodId);

/// <param name="ClientSecret">With which the customer's browser may look at the payment, and finish it where it is not finished.</param>
internal sealed record PaymentIntentAnswer(string StripePaymentIntentId, string ClientSecret)
{
    /// <summary>Ours, and left out once the money is there: <c>requires_action</c> until the holder of the card has answered the bank.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Status { get; init; }
}

internal sealed record SetupIntentRequest(string? UserId);

internal sealed record SetupIntentAnswer(string StripeSetupIntentId, string ClientSecret);
